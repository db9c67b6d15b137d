// First instructions of every CPU: the MMU goes on before anything is stored, so that no datum is ever written past the
// caches and exclusives work from the first one on. A CPU that starts at EL2 stays there, with HCR_EL2.E2H clear; the one
// difference after this file is which table maps memory and where exceptions go. Follows Arm ARM D8 (VMSAv8-64), B2.12
// (exclusives need Normal memory).

.equ STACK_SHIFT, 15                // 32 KiB for each CPU
.equ MAX_CPUS, 32

.section .text.start, "ax"
.global _start
_start:                             // x0 = device tree
    mov     x19, x0
    mov     x20, xzr                // the first CPU has index 0
    b       1f

.global secondary_start
secondary_start:                    // x0 = context of CPU_ON = this CPU's index
    mov     x19, xzr
    mov     x20, x0
1:  msr     daifset, #15
    msr     spsel, #1
    msr     tpidr_el1, x20
    mrs     x0, currentel
    cmp     x0, #8
    b.eq    at_el2
    adrp    x0, rt_vectors
    add     x0, x0, :lo12:rt_vectors
    msr     vbar_el1, x0
    ldr     x0, =0x3330000          // FPEN, and ZEN and SMEN where they exist: nothing traps to EL1
    msr     cpacr_el1, x0

    mov     x0, #0xff00             // attribute 0: Device-nGnRnE, 1: Normal write-back
    msr     mair_el1, x0
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #7              // PARange; 7 (56 bits) needs more than a 4K granule has
    cmp     x1, #5
    mov     x2, #5
    csel    x1, x1, x2, lo
    ldr     x0, =0x803519           // T0SZ 25 (39 bits), walks write-back and inner shareable, no TTBR1
    orr     x0, x0, x1, lsl #32
    msr     tcr_el1, x0
    adrp    x0, rt_tables
    msr     ttbr0_el1, x0
    msr     ttbr1_el1, xzr
    dsb     sy                      // the tables came with the image
    tlbi    vmalle1
    ic      iallu
    dsb     sy
    isb
    ldr     x0, =0x30d01805         // RES1, I, C, M
    msr     sctlr_el1, x0
    isb

stack:
    adrp    x0, rt_stacks
    add     x1, x20, #1
    add     x0, x0, x1, lsl #STACK_SHIFT
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    cbnz    x20, 3f

    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
2:  cmp     x0, x1
    b.hs    3f
    stp     xzr, xzr, [x0], #16
    b       2b

3:  mov     x0, x19
    mov     x1, x20
    bl      rt_start
    b       .

at_el2:
    ldr     x0, =0x80000038         // RW, and interrupts come here: AMO, IMO, FMO
    msr     hcr_el2, x0
    isb
    ldr     x0, =0x22ff             // RES1; FP, and SVE and SME where they exist, trap nowhere
    msr     cptr_el2, x0
    msr     mdcr_el2, xzr
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr
    msr     cntvoff_el2, xzr
    mov     x0, #3                  // counter and timer of EL1 are EL1's
    msr     cnthctl_el2, x0
    mrs     x0, midr_el1
    msr     vpidr_el2, x0
    mrs     x0, mpidr_el1
    msr     vmpidr_el2, x0
    mrs     x0, id_aa64pfr0_el1
    tst     x0, #0xf000000          // a GIC with system registers?
    b.eq    4f
    mov     x0, #0xf                // SRE, and EL1 may have it too
    msr     S3_4_C12_C9_5, x0       // ICC_SRE_EL2
    isb
    msr     S3_4_C12_C11_0, xzr     // ICH_HCR_EL2
4:  adrp    x0, rt_vectors_el2
    add     x0, x0, :lo12:rt_vectors_el2
    msr     vbar_el2, x0
    mov     x0, #0xff00
    msr     mair_el2, x0
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #7
    cmp     x1, #5
    mov     x2, #5
    csel    x1, x1, x2, lo
    ldr     x0, =0x80803519         // as above, and RES1
    orr     x0, x0, x1, lsl #16
    msr     tcr_el2, x0
    adrp    x0, rt_tables_el2
    msr     ttbr0_el2, x0
    dsb     sy
    tlbi    alle2
    ic      iallu
    dsb     sy
    isb
    ldr     x0, =0x30c51835         // RES1, I, C, M
    msr     sctlr_el2, x0
    isb
    b       stack
.ltorg

// Turns HCR_EL2.E2H and TGE on, with the MMU off meanwhile: the names of EL1 and its formats are EL2's from there on. A
// leaf that touches no memory, because it is Device in between.
.section .text.become_vhe, "ax"
.global rt_become_vhe
rt_become_vhe:
    dsb     sy
    mrs     x0, sctlr_el2
    bic     x0, x0, #1
    msr     sctlr_el2, x0
    isb
    mrs     x0, hcr_el2
    orr     x0, x0, #1 << 34
    orr     x0, x0, #1 << 27
    msr     hcr_el2, x0
    isb
    ldr     x0, =0x3330000          // in CPACR_EL1's format now
    msr     cptr_el2, x0
    mov     x0, #0xc00              // EL1PCTEN, EL1PTEN
    msr     cnthctl_el2, x0
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #7
    cmp     x1, #5
    mov     x2, #5
    csel    x1, x1, x2, lo
    ldr     x0, =0x803519
    orr     x0, x0, x1, lsl #32
    msr     tcr_el2, x0
    adrp    x0, rt_tables
    msr     ttbr0_el2, x0
    msr     S3_4_C2_C0_1, xzr       // TTBR1_EL2
    dsb     sy
    tlbi    alle2
    ic      iallu
    dsb     sy
    isb
    ldr     x0, =0x30d01805
    msr     sctlr_el2, x0
    isb
    ret
.ltorg

// Level 1, 1 GiB blocks: devices, then RAM. `mmu` adds the rest when the size of RAM is known.
.section .data.tables, "aw"
.balign 4096
.global rt_tables
rt_tables:
    .quad   0x0060000000000401      // Device-nGnRnE, AF, PXN, UXN
    .quad   0x0040000040000705      // Normal, inner shareable, AF, UXN
    .fill   510, 8, 0
// The same as EL2 without E2H has it: AP[1] is RES1, bit 54 is XN for all there is.
.global rt_tables_el2
rt_tables_el2:
    .quad   0x0040000000000441
    .quad   0x0000000040000745
    .fill   510, 8, 0

.section .stacks, "aw", @nobits
.balign 4096
.global rt_stacks
rt_stacks:
    .space  MAX_CPUS << STACK_SHIFT
