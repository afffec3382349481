# One entry for each exception. They bring what Xen (PV) or the processor (PVH) has
# pushed into one form (vector, error code, rip, cs, rflags, rsp, ss), and never
# return.

.macro trap vector, has_code
pv_trap_\vector:
    pop rcx                                 # Xen pushes these two on top
    pop r11
trap_\vector:
.if \has_code == 0
    push 0
.endif
    push \vector
    jmp trap_common
.endm

.pushsection .text.traps, "ax", @progbits
.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 9, 15, 16, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 31
    trap \vector, 0
.endr
.irp vector, 8, 10, 11, 12, 13, 14, 17, 21, 29, 30
    trap \vector, 1
.endr
trap_common:
    cld
    mov rdi, rsp
    and rsp, -16
    call trap_main
    ud2
.popsection

.macro pointers name, prefix
.global \name
\name:
.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .quad \prefix\vector
.endr
.endm
.pushsection .rodata.traps, "a", @progbits
.balign 8
pointers pv_traps, pv_trap_
pointers pvh_traps, trap_
.popsection
