// First instructions of every CPU: the MMU goes on before anything is stored, so that no datum is ever written past the
// caches and exclusives work from the first one on. Follows Arm ARM D8 (VMSAv8-64), B2.12 (exclusives need Normal memory).

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
    mrs     x0, currentel
    cmp     x0, #(2 << 2)
    b.ne    4f
    // At EL2: with E2H and TGE, what follows means EL2 by the names of EL1. A hypervisor that gives us an EL2 of its own
    // making sees that at the next register it has to look after.
    ldr     x0, =0x488000000        // E2H, RW, TGE
    msr     hcr_el2, x0
    isb
    mrs     x0, sctlr_el2
4:
    msr     tpidr_el1, x20
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
.ltorg

// Level 1, 1 GiB blocks: devices, then RAM. `mmu` adds the rest when the size of RAM is known.
.section .data.tables, "aw"
.balign 4096
.global rt_tables
rt_tables:
    .quad   0x0060000000000401      // Device-nGnRnE, AF, PXN, UXN
    .quad   0x0040000040000705      // Normal, inner shareable, AF, UXN
    .fill   510, 8, 0

.section .stacks, "aw", @nobits
.balign 4096
.global rt_stacks
rt_stacks:
    .space  MAX_CPUS << STACK_SHIFT
