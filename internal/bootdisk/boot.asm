# The boot sector of disks that Caisson makes, for BIOS machines of x86. It
# copies what Table lists from the disk to memory, and starts the Linux kernel
# that is there then, by the kernel's boot protocol for 16 bits.
#
# It is made into boot.bin by:
#
#	as --32 boot.asm -o boot.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary boot.o -o boot.bin
#
# A test holds that boot.bin is this file's, where there is an assembler.
	.code16
	.intel_syntax noprefix
	.global _start
_start:
	jmp	begin

	# At 4: what Go fills in, three parts of 12 bytes each: the first sector on
	# the disk, how many sectors, and the address in memory.
	.balign	4
table:	.fill	36, 1, 0
table_end:

begin:	cli
	cld
	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	mov	ss, ax
	mov	sp, 0x7c00
	sti
	mov	[drive], dl
	mov	si, offset table

	# At most 64 sectors at once go to 0x20000, and from there to their place.
next:	mov	ecx, [si + 4]
	test	ecx, ecx
	jz	done
	cmp	ecx, 64
	jbe	1f
	mov	ecx, 64
1:	mov	[count], cx
	mov	eax, [si]
	mov	[sector], eax
	add	[si], ecx
	sub	[si + 4], ecx
	push	si
	mov	si, offset packet
	mov	dl, [drive]
	mov	ah, 0x42
	int	0x13
	pop	si
	jc	fail
	mov	eax, [si + 8]
	mov	[to], ax
	shr	eax, 16
	mov	[to + 2], al
	mov	[to + 5], ah
	mov	cx, [count]
	shl	cx, 8			# words
	push	si
	mov	si, offset gdt
	mov	ah, 0x87
	int	0x15
	pop	si
	jc	fail
	movzx	ecx, word ptr [count]
	shl	ecx, 9			# bytes
	add	[si + 8], ecx
	jmp	next
done:	add	si, 12
	cmp	si, offset table_end
	jb	next

	cli
	mov	ax, 0x1000
	mov	ds, ax
	mov	es, ax
	mov	fs, ax
	mov	gs, ax
	mov	ss, ax
	mov	sp, 0xe000
	.byte	0xea			# jmp 0x1020:0
	.word	0, 0x1020

	# The screen need not be there, so the serial port is told, too.
fail:	mov	si, offset message
1:	lodsb
	test	al, al
	jz	2f
	mov	dx, 0x3f8
	out	dx, al
	mov	ah, 0x0e
	mov	bx, 7
	int	0x10
	jmp	1b
2:	hlt
	jmp	2b

message:
	.asciz	"caisson: the disk can't be read\r\n"

	.balign	4
packet:	.byte	16, 0
count:	.word	0
	.word	0, 0x2000		# offset and segment of the memory
sector:	.long	0, 0

gdt:	.fill	16, 1, 0
	.word	0xffff			# from 0x20000
	.byte	0, 0, 2, 0x93
	.word	0
	.word	0xffff			# to
to:	.byte	0, 0, 0, 0x93
	.word	0
	.fill	16, 1, 0

drive:	.byte	0

	.org	510
	.word	0xaa55
