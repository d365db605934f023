/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest that fits into the first sector of its disk: at each tick of the clock it writes a number to sector
   2048, one more each time, for ever. */
        .code16
        .globl _start
_start:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     $0x7c00, %sp
        mov     %dl, drive - _start + 0x7c00
        sti
next:
        hlt
        incl    0x8000
        mov     drive - _start + 0x7c00, %dl
        mov     $packet - _start + 0x7c00, %si
        mov     $0x4300, %ax            /* extended write */
        int     $0x13
        jmp     next
drive:
        .byte   0
        .balign 4
packet:
        .byte   16, 0
        .word   1, 0x8000, 0            /* one sector, from here */
        .quad   2048
        .org    510
        .word   0xaa55
