// Into a guest of the program's own and back: `el2::Context` is loaded, ERET, and what comes from below saves it again.
// Only what the instructions here would spoil is kept for the caller: its callee-saved registers, on its stack, and
// TPIDR_EL1, by which the run-time knows its CPU. TPIDR_EL2 holds the context meanwhile.

.equ PC, 248
.equ ESR, 264
.equ HPFAR, 280
.equ INDEX, 288
.equ TPIDR, 296

.section .text.switch, "ax"
.global rt_enter
rt_enter:                           // x0 = context; returns the number of the vector
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    msr     tpidr_el2, x0
    mrs     x1, tpidr_el1
    ldr     x2, [x0, #TPIDR]
    str     x1, [x0, #INDEX]
    msr     tpidr_el1, x2
    ldp     x1, x2, [x0, #PC]
    msr     elr_el2, x1
    msr     spsr_el2, x2
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret

.global rt_leave
rt_leave:                           // x1 = vector; x0, x1 of the guest on the stack
    mrs     x0, tpidr_el2
    stp     x2, x3, [x0, #16]
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0]
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    stp     x18, x19, [x0, #144]
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
    mrs     x2, elr_el2
    stp     x30, x2, [x0, #240]
    mrs     x2, spsr_el2
    mrs     x3, esr_el2
    mrs     x4, far_el2
    mrs     x5, hpfar_el2
    stp     x2, x3, [x0, #ESR - 8]
    stp     x4, x5, [x0, #HPFAR - 8]
    mrs     x2, tpidr_el1
    ldr     x3, [x0, #INDEX]
    str     x2, [x0, #TPIDR]
    msr     tpidr_el1, x3
    mov     x0, x1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret

// With interrupts open for a moment: those pending at this level are taken. ERET with an illegal SPSR, see
// `el2::illegal_return`: the next instruction has PSTATE.IL set.
.global rt_illegal_return
rt_illegal_return:                  // x0 = SPSR
    adr     x1, 1f
    msr     elr_el2, x1
    msr     spsr_el2, x0
    isb
    eret
1:  nop
    ret
