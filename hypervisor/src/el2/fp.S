// FP and SIMD registers, moved on a vCPU's first use. Rust at EL2 is built without FP, so they are the guest's always.
// Layout: Fp in vcpu/state.rs. CPTR_EL2.TFP is clear when these run.

    .arch_extension fp
    .arch_extension simd
    .section .text.fp, "ax"

.macro each op
    \op     q0, q1, [x0, #0 * 32]
    \op     q2, q3, [x0, #1 * 32]
    \op     q4, q5, [x0, #2 * 32]
    \op     q6, q7, [x0, #3 * 32]
    \op     q8, q9, [x0, #4 * 32]
    \op     q10, q11, [x0, #5 * 32]
    \op     q12, q13, [x0, #6 * 32]
    \op     q14, q15, [x0, #7 * 32]
    \op     q16, q17, [x0, #8 * 32]
    \op     q18, q19, [x0, #9 * 32]
    \op     q20, q21, [x0, #10 * 32]
    \op     q22, q23, [x0, #11 * 32]
    \op     q24, q25, [x0, #12 * 32]
    \op     q26, q27, [x0, #13 * 32]
    \op     q28, q29, [x0, #14 * 32]
    \op     q30, q31, [x0, #15 * 32]
.endm

    .global fp_save
fp_save:
    each    stp
    mrs     x1, fpcr
    mrs     x2, fpsr
    str     x1, [x0, #512]
    str     x2, [x0, #520]
    ret

    .global fp_load
fp_load:
    each    ldp
    ldr     x1, [x0, #512]
    ldr     x2, [x0, #520]
    msr     fpcr, x1
    msr     fpsr, x2
    ret
