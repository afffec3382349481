# The first instructions, for both kinds of guest, and the notes by which Xen finds
# them. Both end in Rust on our own stack.

.macro note type
    .balign 4
    .long 4, 1f - 0f, \type
    .asciz "Xen"
0:
.endm
.macro note_text type, text
    note \type
    .asciz "\text"
1:
.endm
.macro note_number type, number:vararg
    note \type
    .quad \number
1:
.endm

.pushsection .note.xen, "a", @note
    note_text 6, "Tidegate"                 # GUEST_OS
    note_text 5, "xen-3.0"                  # XEN_VERSION
    note_text 8, "generic"                  # LOADER
    note_text 9, "yes"                      # PAE_MODE
    note_text 10, "!writable_page_tables|pae_pgdir_above_4gb" # FEATURES
    note_number 1, pv_start                 # ENTRY
    note_number 2, hypercall_page           # HYPERCALL_PAGE
    note_number 3, 0                        # VIRT_BASE
    note_number 4, 0                        # PADDR_OFFSET
    note_number 13, 1, 1                    # L1_MFN_VALID: mask, value
    note_number 14, 0                       # SUSPEND_CANCEL
    note_number 18, pvh_start               # PHYS32_ENTRY

    # Where a policy stands that was put into the linked image: its address and its length,
    # which `tidegate build` writes (host/image).
    .balign 4
    .long 9, 16, 0x7469
    .asciz "Tidegate"
    .balign 4
.global policy_place
policy_place:
    .quad image_end, 0
.popsection

.pushsection .text.boot, "ax", @progbits

# PV: 64-bit mode, Xen's page tables; rsi = start_info.
.code64
.global pv_start
pv_start:
    cld
    mov rsp, offset stack_top
    xor ebp, ebp
    mov rdi, rsi
    call pv_main
    ud2

# PVH: 32-bit protected mode, no paging; ebx = physical address of hvm_start_info.
.code32
.global pvh_start
pvh_start:
    cld
    mov esp, offset stack_top

    # The first 4 GiB, one to one, in 2 MiB pages. Rust refines this.
    mov edi, offset boot_tables + 8192
    mov eax, 0x83                           # present, write, large
    mov ecx, 2048
1:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 1b
    mov edi, offset boot_tables + 4096
    mov eax, offset boot_tables + 8192 + 3
    mov ecx, 4
2:
    mov [edi], eax
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, offset boot_tables + 4096 + 3
    mov edi, offset boot_tables
    mov [edi], eax

    mov eax, cr4
    or eax, 0x620                           # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov cr3, edi
    mov ecx, 0xc0000080                     # EFER: long mode, no-execute
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    and eax, 0xfffffff3                     # no emulation, no task switched
    or eax, 0x80010023                      # paging, write protect, numeric errors, MP, PE
    mov cr0, eax

    mov eax, offset boot_gdt_pointer
    lgdt [eax]
    push 8
    mov eax, offset long_mode
    push eax
    retf
.code64
long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset stack_top
    xor ebp, ebp
    fninit
    push 0x1f80
    ldmxcsr [rsp]
    pop rax
    mov edi, ebx
    call pvh_main
    ud2
.popsection

.pushsection .data.boot_gdt, "aw", @progbits
.balign 8
.global boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                # 8: code, 64-bit, accessed
    .quad 0x00cf93000000ffff                # 16: data, accessed
    .quad 0, 0                              # 24: task state, filled in by Rust
boot_gdt_pointer:
    .word 39
    .quad boot_gdt
.popsection
