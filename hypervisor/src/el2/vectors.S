// The way into a guest and back, and EL2's own faults.
//
// enter_guest(x0: *mut Registers) -> u64: enters the guest whose registers lie at x0 and returns when it leaves, with
// the kind of exit: 0 synchronous, 1 interrupt, 2 SError, 3 that its PSTATE is none it may have. While the guest runs,
// [SP_EL2] holds the pointer. Only x0 to x30, PC and PSTATE move; EL1's own registers stay on the CPU.

    .equ    REG_PC,   31 * 8
    .equ    REG_SPSR, 32 * 8
    .equ    REG_ESR,  33 * 8
    .equ    REG_FAR,  34 * 8
    .equ    REG_HPFAR, 35 * 8
    .equ    BLOCK_GUARD, 16

    .section .text.vectors, "ax"
    .global enter_guest
    .balign 64
enter_guest:
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x0, [sp, #96]
    ldp     x1, x2, [x0, #REG_PC]
    tbnz    x2, #3, 1f              // EL2, EL3 or a mode of AArch32 beside EL0's: not by any guest's PSTATE
    msr     elr_el2, x1
    msr     spsr_el2, x2
    ldp     x2, x3, [x0, #2 * 8]
    ldp     x4, x5, [x0, #4 * 8]
    ldp     x6, x7, [x0, #6 * 8]
    ldp     x8, x9, [x0, #8 * 8]
    ldp     x10, x11, [x0, #10 * 8]
    ldp     x12, x13, [x0, #12 * 8]
    ldp     x14, x15, [x0, #14 * 8]
    ldp     x16, x17, [x0, #16 * 8]
    ldp     x18, x19, [x0, #18 * 8]
    ldp     x20, x21, [x0, #20 * 8]
    ldp     x22, x23, [x0, #22 * 8]
    ldp     x24, x25, [x0, #24 * 8]
    ldp     x26, x27, [x0, #26 * 8]
    ldp     x28, x29, [x0, #28 * 8]
    ldr     x30, [x0, #30 * 8]
    ldp     x0, x1, [x0]
    eret
    // Straight-line speculation past the ERET finds a barrier.
    dsb     nsh
    isb
1:  mov     x0, #3
    ldp     x29, x30, [sp], #112
    ret

.macro leave kind
    .balign 128
    stp     x0, x1, [sp, #-16]!
    ldr     x0, [sp, #16 + 96]
    stp     x2, x3, [x0, #2 * 8]
    mov     x1, #\kind
    b       left_guest
.endm

.macro fault kind
    .balign 128
    // Fatal in any case, so EL1's registers may serve as scratch: the stack may be what faulted.
    msr     tpidr_el1, x0
    .if     \kind >= 4 && \kind < 7
    mrs     x0, spsr_el2
    tbnz    x0, #20, illegal_return
    .endif
    msr     sp_el0, x1
    mov     x1, #\kind
    b       own_fault
.endm

// drain_serrors() -> u64: waits for all accesses made so far on this CPU, and takes an SError that one of them raised: not
// 0 if there was one. SErrors are masked at EL2, so this is where one can be taken, and nowhere else. Without RAS and its
// ESB this is the way (Arm ARM D1.3.2: a pending one is taken before an ISB behind the unmasking completes).
    .balign 64
    .global drain_serrors
drain_serrors:
    dsb     sy
    isb                             // ISR_EL1 may be read early
    mrs     x0, isr_el1
    ands    x0, x0, #(1 << 8)
    b.eq    1f
    msr     daifclr, #4
serror_window:
    isb
serror_window_end:
    msr     daifset, #4
1:  ret

// An SError at EL2: in the window it ends there, once for each window; anywhere else it is a fault of ours.
.macro own_serror
    .balign 128
    stp     x0, x1, [sp, #-16]!
    mrs     x0, elr_el2
    adr     x1, serror_window
    sub     x0, x0, x1
    cmp     x0, #(serror_window_end - serror_window)
    b.hi    1f
    mrs     x0, spsr_el2
    orr     x0, x0, #(1 << 8)
    msr     spsr_el2, x0
    ldp     x0, x1, [sp], #16
    eret
    dsb     nsh
    isb
1:  ldp     x0, x1, [sp], #16
    msr     tpidr_el1, x0
    mrs     x0, spsr_el2
    tbnz    x0, #20, illegal_return
    msr     sp_el0, x1
    mov     x1, #7
    b       own_fault
.endm

    .balign 2048
    .global vectors
vectors:
    fault   0                       // current EL, SP_EL0: never used
    fault   1
    fault   2
    fault   3
    fault   4                       // current EL, SP_EL2: our own faults; interrupts are masked
    fault   5
    fault   6
    own_serror
    leave   0                       // lower EL, AArch64 (its EL0 may be AArch32)
    leave   1
    leave   1                       // FIQ: none is routed to us; taken as an interrupt, it is looked for and not found
    leave   2
    fault   8                       // lower EL, AArch32: EL1 is AArch64
    fault   9
    fault   10
    fault   11

    .balign 64
left_guest:                         // x0: registers, x1: kind; the guest's x0, x1 on the stack
    stp     x4, x5, [x0, #4 * 8]
    stp     x6, x7, [x0, #6 * 8]
    stp     x8, x9, [x0, #8 * 8]
    stp     x10, x11, [x0, #10 * 8]
    stp     x12, x13, [x0, #12 * 8]
    stp     x14, x15, [x0, #14 * 8]
    stp     x16, x17, [x0, #16 * 8]
    stp     x18, x19, [x0, #18 * 8]
    stp     x20, x21, [x0, #20 * 8]
    stp     x22, x23, [x0, #22 * 8]
    stp     x24, x25, [x0, #24 * 8]
    stp     x26, x27, [x0, #26 * 8]
    stp     x28, x29, [x0, #28 * 8]
    ldp     x2, x3, [sp], #16
    str     x30, [x0, #30 * 8]
    stp     x2, x3, [x0]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x0, #REG_PC]
    mrs     x4, esr_el2
    mrs     x5, far_el2
    stp     x4, x5, [x0, #REG_ESR]
    tbz     x4, #31, 1f             // EC 0x20 and above, aborts among them. An exit of its own where we are a guest
    mrs     x6, hpfar_el2
    str     x6, [x0, #REG_HPFAR]
1:
    mrs     x2, tpidr_el2
    ldr     x2, [x2, #BLOCK_GUARD]
    cbnz    x2, guard               // before the first indirect branch
guarded:
    mov     x0, x1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #112
    ret

    // PSTATE.IL was set at EL2: the ERET to the guest was illegal, and what came next was taken from EL2, with the guest's PC
    // and registers (Arm ARM D1.4.4). Nothing else sets it there. That is the guest's end and not ours.
illegal_return:                     // x0 in TPIDR_EL1
    mrs     x0, tpidr_el1
    stp     x0, x1, [sp, #-16]!
    ldr     x0, [sp, #16 + 96]
    stp     x2, x3, [x0, #2 * 8]
    mov     x1, #3
    b       left_guest

// What the guest has taught the branch predictors is not to guide EL2, nor who runs next: see arm/speculation.rs. x2:
// what is to be done. x1 is kept; the firmware may change x0 to x17.
guard:
    mov     x19, x1
    mov     x20, x2
    ands    x3, x2, #0xff
    b.eq    2f
1:  b       . + 4
    subs    x3, x3, #1
    b.ne    1b
    dsb     nsh
    isb
2:  tbz     x20, #8, 3f
    hint    #22                     // CLRBHB
    isb
3:  lsr     x0, x20, #32
    cbz     x0, 4f
    smc     #0
4:  mov     x1, x19
    b       guarded

own_fault:                          // x1: kind; x0 in TPIDR_EL1, x1 in SP_EL0
    mrs     x0, tpidr_el2           // this CPU's block, whose first word is the top of its emergency stack
    cbz     x0, 1f
    ldr     x0, [x0]
    b       2f
1:  adrp    x0, EARLY_EMERGENCY
    add     x0, x0, :lo12:EARLY_EMERGENCY
    add     x0, x0, #4096
2:  sub     x0, x0, #(36 * 8)
    stp     x2, x3, [x0, #2 * 8]
    stp     x4, x5, [x0, #4 * 8]
    stp     x6, x7, [x0, #6 * 8]
    stp     x8, x9, [x0, #8 * 8]
    stp     x10, x11, [x0, #10 * 8]
    stp     x12, x13, [x0, #12 * 8]
    stp     x14, x15, [x0, #14 * 8]
    stp     x16, x17, [x0, #16 * 8]
    stp     x18, x19, [x0, #18 * 8]
    stp     x20, x21, [x0, #20 * 8]
    stp     x22, x23, [x0, #22 * 8]
    stp     x24, x25, [x0, #24 * 8]
    stp     x26, x27, [x0, #26 * 8]
    stp     x28, x29, [x0, #28 * 8]
    mov     x2, sp
    stp     x30, x2, [x0, #30 * 8]  // SP where a guest's registers have PC
    mrs     x2, tpidr_el1
    mrs     x3, sp_el0
    stp     x2, x3, [x0]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    mrs     x4, esr_el2
    mrs     x5, far_el2
    stp     x2, x3, [x0, #32 * 8]
    stp     x4, x5, [x0, #34 * 8]
    mov     sp, x0
    bl      rust_own_fault
3:  wfe
    b       3b
