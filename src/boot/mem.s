# The memory functions the compiler calls. In assembly, as a Rust memcpy could be
# compiled into a call of itself. Loops of four 8-byte moves; from tidegate_rep_from
# bytes on `rep`, which moves whole cache lines where the processor says so (ERMS)
# and is slow elsewhere, above all under emulation. No vector registers: Xen need
# not save what is never used.

.pushsection .data.mem, "aw", @progbits
.balign 8
.global tidegate_rep_from
tidegate_rep_from:
    .quad -1
.popsection

# What the kernel sets it to where `rep` is fast. It begins to be faster than the loops somewhere
# between 512 and 4096 bytes, by processor (cargo xtask bench memory).
.pushsection .rodata.mem, "a", @progbits
.balign 8
.global tidegate_rep_where_fast
tidegate_rep_where_fast:
    .quad 2048
.popsection

.pushsection .text.mem, "ax", @progbits

# memcpy and memmove are one: every path loads all it needs before it stores.
.global tidegate_memmove
.balign 16
tidegate_memmove:
    mov rax, rdi
    cmp rdx, 32
    jae 5f
1:                                  # fewer than 32 bytes at rsi, to rdi
    cmp edx, 16
    jae 4f
    cmp edx, 8
    jae 3f
    cmp edx, 4
    jae 2f
    test edx, edx
    jz 9f
    movzx ecx, byte ptr [rsi]       # 1 to 3: first, middle, last
    movzx r8d, byte ptr [rsi + rdx - 1]
    mov r10, rdx
    shr r10
    movzx r9d, byte ptr [rsi + r10]
    mov [rdi], cl
    mov [rdi + r10], r9b
    mov [rdi + rdx - 1], r8b
    ret
2:
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
3:
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
4:
    mov rcx, [rsi]
    mov r8, [rsi + 8]
    mov r9, [rsi + rdx - 16]
    mov r10, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + 8], r8
    mov [rdi + rdx - 16], r9
    mov [rdi + rdx - 8], r10
    ret
5:
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jb 7f                           # the target starts inside the source
    cmp rdx, [rip + tidegate_rep_from]
    jae 8f
6:
    mov rcx, [rsi]
    mov r8, [rsi + 8]
    mov r9, [rsi + 16]
    mov r10, [rsi + 24]
    mov [rdi], rcx
    mov [rdi + 8], r8
    mov [rdi + 16], r9
    mov [rdi + 24], r10
    add rsi, 32
    add rdi, 32
    sub rdx, 32
    cmp rdx, 32
    jae 6b
    jmp 1b
7:                                  # from the end, the first bytes last
    mov rcx, [rsi + rdx - 8]
    mov r8, [rsi + rdx - 16]
    mov r9, [rsi + rdx - 24]
    mov r10, [rsi + rdx - 32]
    mov [rdi + rdx - 8], rcx
    mov [rdi + rdx - 16], r8
    mov [rdi + rdx - 24], r9
    mov [rdi + rdx - 32], r10
    sub rdx, 32
    cmp rdx, 32
    jae 7b
    jmp 1b
8:
    mov rcx, rdx
    rep movsb
9:
    ret

.global tidegate_memset
.balign 16
tidegate_memset:
    cmp rdx, [rip + tidegate_rep_from]
    jae 7f
    mov rax, rdi
    movzx esi, sil
    mov rcx, 0x0101010101010101
    imul rsi, rcx
    cmp rdx, 32
    jb 2f
1:
    mov [rdi], rsi
    mov [rdi + 8], rsi
    mov [rdi + 16], rsi
    mov [rdi + 24], rsi
    add rdi, 32
    sub rdx, 32
    cmp rdx, 32
    jae 1b
2:                                  # fewer than 32 bytes left at rdi
    cmp edx, 8
    jb 4f
3:
    mov [rdi], rsi
    add rdi, 8
    sub edx, 8
    cmp edx, 8
    jae 3b
4:
    test edx, edx
    jz 6f
5:
    mov [rdi], sil
    inc rdi
    dec edx
    jnz 5b
6:
    ret
7:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

.global tidegate_memcmp
.balign 16
tidegate_memcmp:
    xor eax, eax
    cmp rdx, 8
    jb 3f
1:
    mov rcx, [rdi]
    mov r8, [rsi]
    cmp rcx, r8
    jne 2f
    add rdi, 8
    add rsi, 8
    sub rdx, 8
    cmp rdx, 8
    jae 1b
    jmp 3f
2:                                  # the first byte in memory decides
    bswap rcx
    bswap r8
    cmp rcx, r8
    sbb eax, eax
    or eax, 1
    ret
3:
    test edx, edx
    jz 5f
4:
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    sub eax, ecx
    jne 5f
    inc rdi
    inc rsi
    dec edx
    jnz 4b
5:
    ret

.popsection
