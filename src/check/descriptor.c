/*
 * descriptor.c - the descriptor of a plugin, and what its file exports.
 *
 * plugin_load() has refused already what would be dangerous to read on; this looks for what
 * is merely wrong: options that nobody explained, a table that is too long or too short for
 * the minor it claims, symbols that could clash with those of another plugin.
 *
 * Entry point: check_descriptor().  Runs on: the thread of the check.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_int.h"

#define MAX_FILE ((size_t)256 << 20)

/* --- options and roles -------------------------------------------------------------- */

static bool
is_name(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");

    return n > 0 && n <= 32 && text[n] == '\0' && text[0] >= 'a' && text[0] <= 'z';
}

static bool
is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static void
check_options(struct check *c, const struct t4_plugin *d)
{
    for (size_t i = 0; i < d->n_options; i++) {
        const struct t4_option *o = &d->options[i];
        bool twice = false;

        for (size_t k = 0; k < i; k++)
            twice |= strcmp(o->name, d->options[k].name) == 0;
        check_ok(c, is_name(o->name) && !twice && is_set(o->doc),
                 "option %s.%s has a name of a-z, 0-9 and _, once, and a text", d->name,
                 o->name);
        if ((o->flags & T4_OPTION_SECRET) && is_set(o->default_value))
            check_ok(c, false, "the secret %s.%s has no default", d->name, o->name);
        if ((o->flags & T4_OPTION_REQUIRED) && o->default_value != NULL)
            check_ok(c, false, "option %s.%s is required or has a default, not both",
                     d->name, o->name);
        if (o->flags & ~(uint32_t)(T4_OPTION_SECRET | T4_OPTION_REQUIRED))
            check_ok(c, false, "option %s.%s has no flags that are not in the ABI",
                     d->name, o->name);
    }
}

static size_t
table_size(uint32_t kind)
{
    switch (kind) {
    case T4_ROLE_OBJECT: return sizeof(struct t4_object_ops);
    case T4_ROLE_ENGINE: return sizeof(struct t4_engine_ops);
    }
    return 0;
}

static void
check_roles(struct check *c, const struct t4_plugin *d)
{
    int age = T4_ABI_MINOR - d->abi_minor;

    for (size_t i = 0; i < d->n_roles; i++) {
        const struct t4_role *r = &d->roles[i];
        struct {
            uint32_t size, min_minor;
        } head;

        memcpy(&head, r->ops, sizeof head);
        check_ok(c, is_name(r->name), "role %s has a name of a-z, 0-9 and _", r->name);
        if (table_size(r->kind) == 0) {
            check_ok(c, false, "role %s is of a kind (%u) that this server knows",
                     r->name, r->kind);
            continue;
        }
        /* A table only grows, so an older minor's is no longer than ours. */
        check_ok(c,
                 age < 0   ? head.size >= table_size(r->kind)
                 : age > 0 ? head.size <= table_size(r->kind)
                           : head.size == table_size(r->kind),
                 "the table of role %s has the size of ABI %u.%u (%u bytes)", r->name,
                 d->abi_major, d->abi_minor, head.size);
        check_ok(c, head.min_minor <= d->abi_minor,
                 "role %s needs no newer minor than it was built for", r->name);
    }
}

/* --- exported symbols --------------------------------------------------------------- */

/* Reads the whole file; NULL: not possible. */
static uint8_t *
read_file(const char *path, size_t *n)
{
    FILE *in = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long size;

    if (in == NULL)
        return NULL;
    if (fseek(in, 0, SEEK_END) == 0 && (size = ftell(in)) > 0 &&
        (size_t)size <= MAX_FILE && fseek(in, 0, SEEK_SET) == 0) {
        *n = (size_t)size;
        bytes = malloc(*n);
        if (bytes != NULL && fread(bytes, 1, *n, in) != *n) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(in);
    return bytes;
}

/* What compilers and linkers add to every shared object. */
static bool
is_of_the_tools(const char *name)
{
    return name[0] == '_' || strcmp(name, "mangle_path") == 0;
}

/* The first function or variable besides the entry point, NULL: none. */
static const char *
stray_symbol(const uint8_t *bytes, size_t n)
{
    ElfW(Ehdr) head;
    ElfW(Shdr) section, strings;
    ElfW(Sym) symbol;

    if (n < sizeof head)
        return NULL;
    memcpy(&head, bytes, sizeof head);
    for (size_t i = 0; i < head.e_shnum; i++) {
        size_t at = head.e_shoff + i * sizeof section, text_at;

        if (at > n || n - at < sizeof section)
            return NULL;
        memcpy(&section, bytes + at, sizeof section);
        if (section.sh_type != SHT_DYNSYM)
            continue;
        text_at = head.e_shoff + section.sh_link * sizeof strings;
        if (text_at > n || n - text_at < sizeof strings || section.sh_offset > n ||
            n - section.sh_offset < section.sh_size)
            return NULL;
        memcpy(&strings, bytes + text_at, sizeof strings);
        if (strings.sh_offset > n || n - strings.sh_offset < strings.sh_size ||
            strings.sh_size == 0 || bytes[strings.sh_offset + strings.sh_size - 1] != 0)
            return NULL;
        for (size_t k = 0; (k + 1) * sizeof symbol <= section.sh_size; k++) {
            const char *name;

            memcpy(&symbol, bytes + section.sh_offset + k * sizeof symbol, sizeof symbol);
            if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= strings.sh_size ||
                ELF64_ST_BIND(symbol.st_info) != STB_GLOBAL)
                continue;
            name = (const char *)bytes + strings.sh_offset + symbol.st_name;
            if (name[0] != '\0' && strcmp(name, "t4_plugin_v1") != 0 &&
                !is_of_the_tools(name))
                return name;
        }
    }
    return NULL;
}

static void
check_symbols(struct check *c, const struct t4_plugin *d)
{
    const char *stray;
    uint8_t *bytes;
    Dl_info info;
    size_t n;

    if (dladdr(d->roles, &info) == 0 || info.dli_fname == NULL ||
        (bytes = read_file(info.dli_fname, &n)) == NULL) {
        check_ok(c, false, "the file of plugin %s can be read", d->name);
        return;
    }
    stray = stray_symbol(bytes, n);
    if (!check_ok(c, stray == NULL, "plugin %s exports t4_plugin_v1() only", d->name))
        check_note(c, "it also exports %s: build with -fvisibility=hidden", stray);
    free(bytes);
}

void
check_descriptor(struct check *c, struct plugin *p)
{
    const struct t4_plugin *d = plugin_descriptor(p);

    check_ok(c, d->magic == T4_PLUGIN_MAGIC && d->abi_major == T4_ABI_MAJOR,
             "plugin %s: magic and ABI %u.%u", d->name, d->abi_major, d->abi_minor);
    check_ok(c, d->needs_minor <= d->abi_minor,
             "plugin %s needs no newer minor than it was built for", d->name);
    check_ok(c, is_set(d->version) && is_set(d->license) && is_set(d->summary),
             "plugin %s has version, license and summary", d->name);
    check_options(c, d);
    check_roles(c, d);
    check_symbols(c, d);
}
