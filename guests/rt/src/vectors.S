// The exception tables, one for each Exception level the program may run at: every entry saves the whole general register
// file, then asks Rust (`exception::rt_exception`). The layout of what is saved is `exception::Frame`. At EL2, what comes
// from below ends the run of a guest of the program's own (`rt_leave` in el2/switch.S). Follows Arm ARM D1.3.1 (vector
// offsets).

.macro entry kind, to
.balign 0x80
    sub     sp, sp, #288
    stp     x0, x1, [sp]
    mov     x1, #\kind
    b       \to
.endm

.macro leave kind
.balign 0x80
    stp     x0, x1, [sp, #-16]!
    mov     x1, #\kind
    b       rt_leave
.endm

.macro common el
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_\el
    stp     x30, x2, [sp, #240]
    mrs     x3, spsr_\el
    mrs     x4, esr_\el
    stp     x3, x4, [sp, #256]
    mrs     x5, far_\el
    str     x5, [sp, #272]
    mov     x0, sp
    bl      rt_exception
    ldr     x3, [sp, #256]
    msr     spsr_\el, x3
    ldp     x30, x2, [sp, #240]
    msr     elr_\el, x2
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldp     x0, x1, [sp], #16
    add     sp, sp, #272
    eret
.endm

.section .text.vectors, "ax"
.balign 0x800
.global rt_vectors
rt_vectors:
    .irp    kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    entry   \kind, rt_common
    .endr
rt_common:
    common  el1

.section .text.vectors_el2, "ax"
.balign 0x800
.global rt_vectors_el2
rt_vectors_el2:
    .irp    kind, 0, 1, 2, 3, 4, 5, 6, 7
    entry   \kind, rt_common_el2
    .endr
    .irp    kind, 8, 9, 10, 11, 12, 13, 14, 15
    leave   \kind
    .endr
rt_common_el2:
    common  el2
