/*
 * Forms from rows: encoding and operands are in the row's own letters; what an instruction wants of registers and
 * memory, so that it does more than fault, is in a list by name. So are the rows whose oracle is another one.
 */
#include "diff_form.h"

#include <string.h>

enum { FORMS = 640 };
struct form forms[FORMS];
unsigned forms_n;

static const struct nature {
	const char *names; /* with blanks around each */
	uint32_t f;
} natures[] = {
	{ " DIV IDIV ", F_DIV },
	{ " MOVS CMPS STOS LODS SCAS ", F_STR },
	{ " XLAT ", F_XLAT },
	{ " CALL CALL_IND CALL_FAR CALL_FARM RET RET_FAR IRET ", F_STACK },
	{ " PUSH POP PUSH_SREG POP_SREG PUSHA POPA PUSHF POPF ENTER ", F_STACK },
	{ " CALL_IND JMP_IND RET ", F_BRANCH },
	{ " POPF ", F_POPF },
	{ " ENTER LEAVE ", F_FRAME },
	{ " POP_SREG LES LDS LSS LGS JMP_FAR CALL_FAR JMP_FARM CALL_FARM RET_FAR IRET ", F_FAR },
	{ " LAR LSL VERR VERW ARPL ", F_SEL },
	{ " CMPXCHG ", F_CAS },
	{ " CMPXCHG8B ", F_CAS2 | F_NO66 },
	{ " ADOX MOVNTI ", F_NO66 },
};

static const struct excuse {
	const char *names, *why;
} excuses[] = {
	{ " CPUID RDTSC RDTSCP RDRAND RDSEED RDPID XGETBV ", "the host's answer is its own" },
	{ " SGDT SIDT SLDT STR SMSW XSETBV ", "the host's tables and registers are its own" },
	{ " SYSCALL SYSENTER VMCALL VMMCALL ", "it leads into the host's kernel" },
	{ " INT INT3 INTO INT1 ", "it leads into the host's kernel" },
	{ " LFS RDFSBASE WRFSBASE RDGSBASE WRGSBASE ", "FS and GS are the tester's" },
	{ " FXSAVE FXRSTOR XSAVE XRSTOR XSAVEOPT XSAVEC XSAVES XRSTORS LDMXCSR STMXCSR EMMS WAIT ", "it is t_thunk's" },
};

static bool listed(const char *names, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = names; (p = strstr(p, name)); p += len)
		if (p[-1] == ' ' && p[len] == ' ')
			return true;
	return false;
}

const char *form_excuse(const struct row *r)
{
	if (r->section != SECTION_INT)
		return "it is t_thunk's";
	if (!strcmp(r->name, "POP_SREG") && !strcmp(r->opnds, "T4"))
		return "FS and GS are the tester's";
	for (unsigned n = 0; n < ARRAY_LEN(excuses); n++)
		if (listed(excuses[n].names, r->name))
			return excuses[n].why;
	return NULL;
}

static uint32_t operand_flags(const char *o)
{
	static const struct {
		const char *what;
		uint32_t f;
	} kinds[] = {
		{ "CL", F_CL },		  { "DX", 0 },	     { "Ib", F_IMM8 },	       { "Sb", F_IMM8 },
		{ "Iw", F_IMM16 },	  { "Iv", F_IMMV },  { "Sz", F_IMMZ },	       { "Jb", F_REL8 },
		{ "Jz", F_RELZ },	  { "Tr", F_MODRM }, { "E", F_MODRM },	       { "G", F_MODRM },
		{ "C", F_MODRM },	  { "D", F_MODRM },  { "M", F_MODRM | F_MEM }, { "Z", F_PLUSR },
		{ "R", F_MODRM | F_REG }, { "O", F_MOFFS },  { "B", F_VVVV },
	};

	for (unsigned n = 0; n < ARRAY_LEN(kinds); n++)
		if (!strncmp(o, kinds[n].what, strlen(kinds[n].what)))
			return kinds[n].f;
	return 0;
}

static uint32_t row_flags(const struct row *r)
{
	uint32_t f = r->modrm ? F_MODRM : 0;

	for (const char *o = r->opnds; o && *o; o = strchr(o, ','), o += o != NULL)
		f |= operand_flags(o);
	for (unsigned n = 0; n < ARRAY_LEN(natures); n++)
		if (listed(natures[n].names, r->name))
			f |= natures[n].f;
	if (!strcmp(r->os, "b"))
		f |= F_BYTE;
	if (!strcmp(r->name, "MOV_SREG") && r->opnds[0] == 'T')
		f |= F_SEL;
	if (!strcmp(r->opnds, "Ev,Gv") && r->name[0] == 'B' && r->map == MAP_0F) /* BT BTS BTR BTC */
		f |= F_BITS;
	if (r->map >= MAP_VEX)
		f |= F_VEX;
	if (row_has(r, "lock"))
		f |= F_LOCK;
	if (r->sel[SEL_MODE] >= 0)
		f |= r->sel[SEL_MODE] ? F_ONLY64 : F_NO64;
	if (r->sel[SEL_MOD] >= 0)
		f |= r->sel[SEL_MOD] ? F_REG : F_MEM;
	if (r->sel[SEL_REXB] > 0)
		f |= F_REXB | F_ONLY64;
	if (r->sel[SEL_PFX] == 0 || r->sel[SEL_PFX] == 1)
		f |= F_NO66;
	return f;
}

static struct form form_of(const struct row *r)
{
	static const uint8_t legacy[] = { 0, 0x66, 0xf2, 0xf3 };
	unsigned pfx = r->sel[SEL_PFX] < 0 ? 0 : (unsigned)r->sel[SEL_PFX];
	bool vex = r->map >= MAP_VEX;

	return (struct form){
		.row = r,
		.map = vex ? (uint8_t)(r->map - MAP_VEX + 1) : r->map,
		.op = r->lo,
		.span = (uint8_t)(r->hi - r->lo + 1),
		.ext = r->sel[SEL_REG],
		.rm = r->sel[SEL_RM],
		.pfx = vex ? (uint8_t)(pfx ^ pfx >> 1) : legacy[pfx],
		.f = row_flags(r),
	};
}

void forms_init(void)
{
	for (unsigned n = 0; n < rows_n && forms_n < FORMS; n++)
		if (!form_excuse(&rows[n]))
			forms[forms_n++] = form_of(&rows[n]);
}
