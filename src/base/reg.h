/*
 * Linker sets: REG_ADD(set, object) in any file that is linked puts a pointer to the object into the set; REG_FOREACH
 * walks it. Order is link order: sort by name where it shows. Files that only register are linked whole
 * (see link_whole in meson.build), so nothing else has to name them.
 */
#ifndef BASE_REG_H
#define BASE_REG_H

/* Red zones around the pointers would break the walk; gcc puts none into named sections. */
#ifdef __clang__
#define REG_PLAIN __attribute__((no_sanitize("address")))
#else
#define REG_PLAIN
#endif
#define REG_ADD(set, obj) \
	static const void *const reg_##set##_##obj __attribute__((section("reg_" #set), used)) REG_PLAIN = &(obj)
#define REG_DECLARE(set) extern const void *const __start_reg_##set[], *const __stop_reg_##set[]
#define REG_FOREACH(set, type, var)                                                                 \
	for (const void *const *var##_p = __start_reg_##set; var##_p < __stop_reg_##set; var##_p++) \
		for (type *var = (type *)*var##_p; var; var = NULL)

#endif
