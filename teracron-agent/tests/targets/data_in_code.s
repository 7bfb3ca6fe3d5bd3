# Functions with data between their instructions, as people write them in assembly.
    .text
    .globl  reads_data, hides_data
    .type   reads_data, @function
reads_data:
    .cfi_startproc
    movl    .Ldata(%rip), %eax
    jmp     .Lon
.Ldata:
    .byte   0xb8, 0xc3, 0x90, 0xc3, 0x90
.Lon:
    push    %rbx
    .cfi_adjust_cfa_offset 8
    pop     %rbx
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size   reads_data, .-reads_data
    .type   hides_data, @function
hides_data:
    .cfi_startproc
    xorl    %eax, %eax
    ret
    .byte   0x90, 0xc3, 0x90, 0xc3
    .cfi_endproc
    .size   hides_data, .-hides_data
    .section .note.GNU-stack,"",@progbits
