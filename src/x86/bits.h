/* SPDX-License-Identifier: MIT */
/* The architecture's bits and numbers, SDM names. Data only. */
#ifndef ANYKVM_BITS_H
#define ANYKVM_BITS_H

#include "base/base.h"

/* EFLAGS, SDM 1 3.4.3 */
#define EFL_CF	 BIT(0)
#define EFL_ONE	 BIT(1)
#define EFL_PF	 BIT(2)
#define EFL_AF	 BIT(4)
#define EFL_ZF	 BIT(6)
#define EFL_SF	 BIT(7)
#define EFL_TF	 BIT(8)
#define EFL_IF	 BIT(9)
#define EFL_DF	 BIT(10)
#define EFL_OF	 BIT(11)
#define EFL_IOPL (BIT(12) | BIT(13))
#define EFL_NT	 BIT(14)
#define EFL_RF	 BIT(16)
#define EFL_VM	 BIT(17)
#define EFL_AC	 BIT(18)
#define EFL_VIF	 BIT(19)
#define EFL_VIP	 BIT(20)
#define EFL_ID	 BIT(21)
#define EFL_ARITH (EFL_CF | EFL_PF | EFL_AF | EFL_ZF | EFL_SF | EFL_OF)
#define EFL_VALID 0x3f7fd7ull

/* CR0, CR4, EFER, SDM 3A 2.5, 2.2.1 */
#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME	       BIT(0)
#define CR4_PVI	       BIT(1)
#define CR4_TSD	       BIT(2)
#define CR4_DE	       BIT(3)
#define CR4_PSE	       BIT(4)
#define CR4_PAE	       BIT(5)
#define CR4_MCE	       BIT(6)
#define CR4_PGE	       BIT(7)
#define CR4_PCE	       BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE	       BIT(22)
#define CR4_PKS	       BIT(24)

#define EFER_SCE   BIT(0)
#define EFER_LME   BIT(8)
#define EFER_LMA   BIT(10)
#define EFER_NXE   BIT(11)
#define EFER_SVME  BIT(12)
#define EFER_LMSLE BIT(13)
#define EFER_FFXSR BIT(14)

/* Exceptions, SDM 3A 6.3.1 */
enum exception_vector {
	EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6,
	EXC_NM = 7, EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14,
	EXC_MF = 16, EXC_AC = 17, EXC_MC = 18, EXC_XM = 19,
};

/* DR6, DR7, SDM 3A 17.2 */
#define DR6_FIXED 0xffff0ff0ull
#define DR6_BD	  BIT(13)
#define DR6_BS	  BIT(14)
#define DR6_BT	  BIT(15)
#define DR7_FIXED 0x400ull
#define DR7_GD	  BIT(13)

/* MSRs that more than one folder names */
#define MSR_TSC		   0x10
#define MSR_APIC_BASE	   0x1b
#define MSR_SYSENTER_CS	   0x174
#define MSR_SYSENTER_ESP   0x175
#define MSR_SYSENTER_EIP   0x176
#define MSR_PAT		   0x277
#define MSR_PKRS	   0x6e1
#define MSR_EFER	   0xc0000080
#define MSR_STAR	   0xc0000081
#define MSR_LSTAR	   0xc0000082
#define MSR_CSTAR	   0xc0000083
#define MSR_FMASK	   0xc0000084
#define MSR_FS_BASE	   0xc0000100
#define MSR_GS_BASE	   0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX	   0xc0000103

/* In a 32-bit or 64-bit TSS: offset of the I/O bitmap, 2 bytes */
#define TSS_IOMAP 102

#endif
