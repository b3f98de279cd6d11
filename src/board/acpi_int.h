/* Parts of the ACPI tables, for this folder. */
#ifndef BOARD_ACPI_INT_H
#define BOARD_ACPI_INT_H

#include "board/pc.h"
#include "dev/aml.h"

/* The code of the DSDT. */
void acpi_dsdt(struct pc *pc, struct aml *a);
/* The ISA bridge with its devices and interrupt links, in the scope of PC00. */
void acpi_isa(struct pc *pc, struct pci_dev *lpc, struct aml *a);

#endif
