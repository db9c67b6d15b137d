// EL1's vectors while a virtual EL2 runs at EL0: accesses to registers that are in its page are done here, without a way to EL2.
//
// This is copied into a page that EL1 executes (memory/el2_vectors.rs), where what is zero here becomes an HVC with the number of the vector
// or what else has to be there. Behind it are the pages that say which registers are where (arm/vncr.rs), by CRn, CRm and op2:
// those with op1 0, then those with op1 4. SP_EL1 is the page of registers, whose first four words keep X0 to X3.
//
// An instruction that is UNDEFINED at EL0 is read as EL0 would read it, in the same translation regime. Until ELR_EL1 is behind it, all this
// can be begun anew; EL2 does so where the read is an abort of stage 2. An abort of stage 1 comes to the vector at 0x200, whose HVC EL2
// knows: X0 is the instruction's address then, and X2 its SPSR_EL1.

    .section .rodata.el0_vectors, "a"
    .balign 8
    .global el0_vectors
el0_vectors:
    .equ    BEHIND, 4096            // where the pages with the offsets begin
    // Of vncr::page.
    .equ    ZERO, 0xd38
    .equ    CSSELR, 0xd40
    .equ    MDSCR, 0xd48
    .equ    IS_PENDING, 0xd50
    // What a write is: vncr::Write, and more of the same kind for what is not in the pages with the offsets.
    .equ    WRITE_BY_EL2, 1
    .equ    WRITE_HCR, 3
    .equ    WRITE_CPTR, 5
    .equ    WRITE_MDCR, 7
    .equ    WRITE_TPIDRRO, 1 << 12 | 1
    .equ    WRITE_MDSCR, 1 << 12 | 3
    .equ    WRITE_CSSELR, 1 << 12 | 5
    .equ    TDCC, 1 << 12           // of MDSCR_EL1

    // The vector for what comes synchronously from EL0.
    .org    el0_vectors + 0x400
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    mrs     x0, esr_el1
    mrs     x2, spsr_el1
    lsr     x0, x0, #26
    cbnz    x0, to_el2              // not EC 0
    tbnz    x2, #21, to_el2         // PSTATE.SS: EL2 ends a step
    mrs     x0, elr_el1
    ldtr    w1, [x0]
    mov     w2, #(1 << 21 | 1 << 18)
    mov     w3, #0xd518             // MSR, op0 3, op1 0; MRS and op1 4 differ by one bit each
    bic     w2, w1, w2
    cmp     w3, w2, lsr #16
    b.ne    others
    ubfx    w2, w1, #5, #11         // CRn, CRm, op2
    ubfx    w3, w1, #18, #1
    bfi     w2, w3, #11, #1
    adr     x3, el0_vectors + BEHIND
    ldrh    w2, [x3, x2, lsl #1]    // the offset, and in the lowest bits what a write is
    cbz     w2, others
found:                              // x0: ELR_EL1, w1: the instruction, w2: its offset and what a write is
    and     w3, w1, #31             // Rt
    tbnz    w1, #21, read
    adr     x1, sources
    add     x1, x1, x3, lsl #3
    br      x1
to_el2:
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    hvc     #8

    // Behind the accesses to the interface.
    .org    el0_vectors + 0xa80
read:
    and     x2, x2, #0xff8
    ldr     x1, [sp, x2]
    adr     x2, targets
    add     x2, x2, x3, lsl #3
    br      x2
sources:
    .irp    n, 0, 1, 2, 3
    ldr     x1, [sp, #(8 * \n)]
    b       write
    .endr
    .irp    n, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    mov     x1, x\n
    b       write
    .endr
    mov     x1, xzr
write:
    tbnz    w2, #0, write_otherwise
    str     x1, [sp, x2]
done:
    add     x0, x0, #4
    msr     elr_el1, x0
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    eret
    // Straight-line speculation past the ERET finds a barrier.
    dsb     nsh
    isb
targets:
    .irp    n, 0, 1, 2, 3
    str     x1, [sp, #(8 * \n)]
    b       done
    .endr
    .irp    n, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    mov     x\n, x1
    b       done
    .endr
    b       done

write_otherwise:
    and     w3, w2, #~0xff8         // what it is
    and     x2, x2, #0xff8
    cmp     w3, #WRITE_HCR
    b.eq    1f
    cmp     w3, #WRITE_CPTR
    b.eq    2f
    cmp     w3, #WRITE_MDCR
    b.eq    3f
    tbz     w3, #12, to_el2
    tbnz    w3, #1, 4f
    tbnz    w3, #2, 5f
    msr     tpidrro_el0, x1
    b       done
1:  tbnz    x1, #34, to_el2         // E2H
    tst     x1, #(0xf << 42)        // NV, NV1, AT, NV2
    b.ne    to_el2
    str     x1, [sp, x2]
    b       done
2:  mov     w3, #(3 << 20)          // CPACR_EL1.FPEN
    tst     x1, #(1 << 10)          // CPTR_EL2.TFP
    csel    x3, xzr, x3, ne
    msr     cpacr_el1, x3
    str     x1, [sp, x2]
    b       done
3:  ldr     x3, [sp, #MDSCR]
    tst     x3, #~TDCC
    b.ne    to_el2                  // debug exceptions go elsewhere now
    str     x1, [sp, x2]
    b       done
4:  ldr     x3, [sp, x2]
    orr     x3, x3, x1
    tst     x3, #~TDCC
    b.ne    to_el2                  // a debugger's
    str     x1, [sp, x2]
    b       done
5:  tst     x1, #~0xf               // Level and InD are all there is on any CPU
    b.ne    to_el2
    str     x1, [sp, x2]
    b       done

// Registers of other op0 and op1. w1: the instruction.
others:
    and     w2, w1, #~0x1f          // without Rt
    mov     w3, #0xc100             // MRS of ISR_EL1
    movk    w3, #0xd538, lsl #16
    cmp     w2, w3
    b.eq    1f
    and     w2, w2, #~(1 << 21)     // MRS or MSR
    mov     w3, #0xd51a0000         // CSSELR_EL1
    cmp     w2, w3
    b.eq    2f
    mov     w3, #0x0240             // MDSCR_EL1
    movk    w3, #0xd510, lsl #16
    cmp     w2, w3
    b.eq    3f
    mov     w3, #0xd060             // TPIDRRO_EL0, which EL0 reads
    movk    w3, #0xd51b, lsl #16
    cmp     w2, w3
    b.ne    to_el2
    mov     w2, #WRITE_TPIDRRO
    b       found
1:  ldr     x3, [sp, #IS_PENDING]
    cbnz    x3, to_el2
    mov     w2, #ZERO
    b       found
2:  mov     w2, #(CSSELR | WRITE_CSSELR)
    b       found
3:  mov     w2, #(MDSCR | WRITE_MDSCR)
    b       found
    .org    el0_vectors + 0x1000
