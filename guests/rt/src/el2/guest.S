// What a guest of the program's own runs, a page to be copied anywhere: it finds its data by TPIDR_EL1. Exceptions it does
// not expect are told by HVC, 0x100 and the vector's number; interrupts are logged: how many, and the last one's number.

.section .rodata.guest, "a"
.balign 8
.global rt_guest_code
rt_guest_code:
    .irp    kind, 0, 1, 2, 3, 4
    .balign 0x80
    hvc     #0x100 + \kind
    eret
    .endr
    .balign 0x80                    // 5: an interrupt
    stp     x0, x1, [sp, #-32]!
    str     x2, [sp, #16]
    mrs     x0, S3_0_C12_C12_0      // ICC_IAR1_EL1
    mrs     x1, tpidr_el1
    str     x0, [x1, #8]
    mrs     x2, S3_3_C14_C0_1       // CNTPCT_EL0
    str     x2, [x1, #16]
    and     x2, x0, #0xffffff
    cmp     x2, #27
    b.ne    1f
    msr     cntv_ctl_el0, xzr
1:  cmp     x2, #30
    b.ne    2f
    msr     cntp_ctl_el0, xzr
2:  isb
    msr     S3_0_C12_C12_1, x0      // ICC_EOIR1_EL1
    ldr     x2, [x1]
    add     x2, x2, #1
    str     x2, [x1]
    ldr     x2, [sp, #16]
    ldp     x0, x1, [sp], #32
    eret
    .irp    kind, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 0x80
    hvc     #0x100 + \kind
    eret
    .endr
    .balign 0x80

    // WAIT: until the interrupt count at x0 is x1 at least.
1:  ldr     x2, [x0]
    cmp     x2, x1
    b.hs    2f
    yield
    b       1b
2:  hvc     #1
    .balign 0x40
    // SLEEP: the same by WFI, which is not entered when the count is there.
1:  msr     daifset, #2
    ldr     x2, [x0]
    cmp     x2, x1
    b.hs    2f
    dsb     sy
    wfi
    msr     daifclr, #2
    isb
    b       1b
2:  hvc     #1
    .balign 0x40
    // FILL: x1 words at x0 with x2, x2 + 1, ...
1:  str     x2, [x0], #8
    add     x2, x2, #1
    subs    x1, x1, #1
    b.ne    1b
    hvc     #1
    .balign 0x40
    // COMPARE: how many of x1 words at x0 are not x2, x2 + 1, ...: in x3.
    mov     x3, xzr
1:  ldr     x4, [x0], #8
    cmp     x4, x2
    cinc    x3, x3, ne
    add     x2, x2, #1
    subs    x1, x1, #1
    b.ne    1b
    hvc     #1
    .balign 0x40
    // CALL: x1 times HVC #0.
1:  hvc     #0
    subs    x1, x1, #1
    b.ne    1b
    hvc     #1
    .balign 0x40
    // READ: x1 times a word at x0, x2 further each time.
1:  ldr     w3, [x0]
    add     x0, x0, x2
    subs    x1, x1, #1
    b.ne    1b
    hvc     #1
    .balign 0x40
    // IDENTIFY: x1 times ID_AA64PFR0_EL1.
1:  mrs     x3, id_aa64pfr0_el1
    subs    x1, x1, #1
    b.ne    1b
    hvc     #1
    .balign 0x40
    // WATCH: copies the word at x0 to x2 for ever, and counts at x3.
    mov     x5, xzr
1:  ldr     x4, [x0]
    str     x4, [x2]
    add     x5, x5, #1
    str     x5, [x3]
    yield
    b       1b
    .balign 0x40
    // SEND: x1 times an SGI as x2 has it, each time when the count at x0 is one higher.
    mov     x4, xzr
1:  msr     S3_0_C12_C11_5, x2      // ICC_SGI1R_EL1
    add     x4, x4, #1
2:  ldr     x3, [x0]
    cmp     x3, x4
    b.hs    3f
    yield
    b       2b
3:  cmp     x4, x1
    b.lo    1b
    hvc     #1
    .balign 0x40
    // ECHO: for each interrupt counted at x0, an SGI as x2 has it.
    mov     x4, xzr
1:  ldr     x3, [x0]
    cmp     x3, x4
    b.hi    2f
    yield
    b       1b
2:  add     x4, x4, #1
    msr     S3_0_C12_C11_5, x2
    b       1b
    .balign 0x40
.global rt_guest_code_end
rt_guest_code_end:
