// First instructions of every CPU: from the firmware's hand-over, MMU and caches off, to Rust with EL2's own map.
//
// Until the MMU is on memory is Device: nothing here is unaligned or exclusive, and no Rust runs. Symbols are reached
// relative to the PC, so they are physical here and virtual after the jump. What is written with caches off is
// invalidated from them before they are turned on, for lines that speculation may have brought in (Arm ARM B2.8).

    .section .text.boot, "ax"
    .global _start
_start:
    // The arm64 boot protocol's header (Linux Documentation/arch/arm64/booting.rst).
    b       start
    .long   0
    .quad   0                       // text_offset: none
    .quad   __image_size
    .quad   0xa                     // little endian, 4K pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

    .equ    DESC_TABLE, 0x3
    .equ    DESC_RX,    0x00000000000007c3  // page, AF, inner shareable, read-only, RES1 AP[1], attribute 0
    .equ    DESC_RO,    0x00400000000007c3  // and never executed
    .equ    DESC_RW,    0x0040000000000743
    .equ    DESC_BLOCK_RX, 0x7c1

// Maps the image's pages from symbol \from to symbol \to with \rights. x21: level-3 table, x22: image's PA.
.macro map_pages from, to, rights
    adrp    x1, \from
    adrp    x2, \to
    ldr     x3, =\rights
1:  cmp     x1, x2
    b.hs    2f
    sub     x4, x1, x22
    lsr     x4, x4, #12
    orr     x5, x1, x3
    str     x5, [x21, x4, lsl #3]
    add     x1, x1, #4096
    b       1b
2:
.endm

// Invalidates the data caches from x1 to x2 to the point of coherency. Clobbers x3, x4.
invalidate:
    mrs     x3, ctr_el0
    ubfx    x3, x3, #16, #4
    mov     x4, #4
    lsl     x3, x4, x3
    sub     x4, x3, #1
    bic     x1, x1, x4
    dmb     sy                      // stores to Device memory are not ordered with it otherwise (Arm ARM D7.5.9)
1:  dc      ivac, x1
    add     x1, x1, x3
    cmp     x1, x2
    b.lo    1b
    dsb     sy
    ret

start:
    msr     daifset, #0xf
    mov     x20, x0                 // the board's device tree
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    park                    // not EL2: there is nothing a hypervisor could do

    bl      el2_quiet

    // Zero .bss, tables included.
    adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __boot_guard
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:
    // .data from where it was loaded to where it is.
    adrp    x1, __data_start
    adrp    x2, __data_end
    add     x2, x2, :lo12:__data_end
    adrp    x3, __data_from
    add     x3, x3, :lo12:__data_from
1:  cmp     x1, x2
    b.hs    2f
    ldp     x4, x5, [x3], #16
    stp     x4, x5, [x1], #16
    b       1b
2:
    // The image at its link address, page by page, each section with its rights.
    adrp    x22, __image_start
    adrp    x21, boot_l3
    map_pages __image_start, __text_end, DESC_RX
    map_pages __text_end, __rodata_end, DESC_RO
    map_pages __rodata_end, __boot_guard, DESC_RW
    map_pages __boot_stack_bottom, __image_end, DESC_RW
    orr     x5, x21, #DESC_TABLE
    adrp    x6, boot_l2
    str     x5, [x6]                // IMAGE_BASE is 2 MiB aligned and first in its 512 GiB
    orr     x5, x6, #DESC_TABLE
    adrp    x6, boot_l1
    str     x5, [x6]
    orr     x5, x6, #DESC_TABLE
    adrp    x6, boot_l0
    str     x5, [x6, #(256 * 8)]

    // The same code at its load address, for the instructions around turning the MMU on: one or two 2 MiB blocks.
    adrp    x7, identity_l1
    orr     x5, x7, #DESC_TABLE
    ubfx    x1, x22, #39, #9
    str     x5, [x6, x1, lsl #3]
    adrp    x8, identity_l2
    orr     x5, x8, #DESC_TABLE
    ubfx    x1, x22, #30, #9
    str     x5, [x7, x1, lsl #3]
    ubfx    x1, x22, #21, #9
    lsr     x2, x22, #21
    lsl     x2, x2, #21
    mov     x3, #DESC_BLOCK_RX
    orr     x5, x2, x3
    str     x5, [x8, x1, lsl #3]

    adrp    x1, __data_start
    adrp    x2, __image_end
    bl      invalidate

    mov     x0, x22
    mov     x1, x20
    adrp    x2, __boot_stack_top
    sub     x2, x2, x22             // its distance from the image's start
    ldr     x3, =IMAGE_BASE
    add     x2, x2, x3
    ldr     x3, =rust_entry
    b       mmu_on

// A secondary CPU, by PSCI or out of the spin table. x0 is worth nothing: the CPU knows itself by its MPIDR.
    .global secondary_start
secondary_start:
    msr     daifset, #0xf
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    park
    bl      el2_quiet
    mrs     x1, mpidr_el1
    ldr     x2, =0xff00ffffff
    and     x1, x1, x2
    orr     x1, x1, #(1 << 63)      // an entry in use says so
    adrp    x4, SECONDARIES
    add     x4, x4, :lo12:SECONDARIES
    mov     x5, #16                 // entries in it: mpidr, stack top, argument, unused
1:  ldp     x6, x2, [x4]
    cmp     x6, x1
    b.eq    2f
    add     x4, x4, #32
    subs    x5, x5, #1
    b.ne    1b
    b       park
2:  cbz     x2, park                // a stranger to the device tree
    ldr     x0, [x4, #16]
    mov     x1, xzr
    ldr     x3, =rust_secondary
    b       mmu_on

park:
    wfe
    b       park

// EL2 as we want to find it: translation off, nothing trapped to surprise us. Clobbers x0.
el2_quiet:
    ldr     x0, =0x30c50830         // SCTLR_EL2: RES1 bits alone; MMU, caches, alignment checks off
    msr     sctlr_el2, x0
    isb
    mov     x0, #(1 << 31)          // HCR_EL2.RW; E2H off
    msr     hcr_el2, x0
    isb
    ldr     x0, =0x401033ff         // CPTR_EL2: RES1 bits, SVE and trace trapped; TCPAC and TFP clear
    msr     cptr_el2, x0
    msr     tpidr_el2, xzr          // no block of its own yet (percpu.rs)
    msr     spsel, #1
    isb
    ret

// Turns the MMU on and goes to x3 (virtual) with the stack x2 (virtual); x0 and x1 are handed on. Clobbers x4 to x6.
mmu_on:
    ldr     x4, =0x0000000000ff04ff // MAIR: 0 Normal write-back, 1 Device nGnRE, 2 Normal write-back
    // Attribute 0 is 0xff, 1 is 0x04, 2 is 0xff.
    msr     mair_el2, x4
    mrs     x5, id_aa64mmfr0_el1
    and     x5, x5, #0xf
    mov     x6, #5                  // at most 48 bits: the rest needs other descriptors
    cmp     x5, x6
    csel    x5, x5, x6, lo
    ldr     x4, =0x80803510         // TCR_EL2: RES1, 4K, inner shareable, write-back, T0SZ 16
    orr     x4, x4, x5, lsl #16
    msr     tcr_el2, x4
    adrp    x4, boot_l0
    msr     ttbr0_el2, x4
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    mov     sp, x2
    ldr     x4, =0x30cd183d         // SCTLR_EL2: RES1, M, C, SA, I, WXN
    msr     sctlr_el2, x4
    isb
    ldr     x4, =vectors            // from here on a fault of ours is told
    msr     vbar_el2, x4
    isb
    mov     x29, xzr                // the end of a backtrace
    mov     x30, xzr
    br      x3
    .ltorg

    .section .tables, "aw", %nobits
    .balign 4096
    .global boot_l0
boot_l0:     .skip 4096
boot_l1:     .skip 4096
boot_l2:     .skip 4096
    .global boot_l3
boot_l3:     .skip 4096
identity_l1: .skip 4096
identity_l2: .skip 4096
