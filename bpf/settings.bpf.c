// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Alone in a section of its own: user space overwrites all of it before the programs are loaded. */
#include "compat.bpf.h"
#include "settings.h"

const volatile struct settings settings SEC(".rodata.settings");

char LICENSE[] SEC("license") __weak = "Dual MIT/GPL";
