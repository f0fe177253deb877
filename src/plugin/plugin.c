/*
 * plugin.c - loading a plugin and what the host offers to it.
 *
 * The order of a load: name -> file (owner, mode) -> dlopen -> entry symbol -> magic,
 * size, ABI major, needs_minor, option_size, name, roles -> settings (options.c) ->
 * load().  Nothing behind a field is read before the fields that protect it have been
 * checked.  Any failure undoes all of it.  A plugin that was loaded stays mapped until
 * the process ends: it may have left thread-local destructors or threads behind, and the
 * code under them must not go away.
 *
 * Entry points: plugin_load(), plugin_describe(), plugin_role(), plugin_unload().
 * Runs on: the main thread; the host's services (struct t4_host) on any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "plugin/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "env/env.h"
#include "env/thread.h"
#include "plugin/options.h"

#ifndef T4_PLUGIN_DIR
#define T4_PLUGIN_DIR                                                                    \
    "/usr/local/lib/t4" /* the build says where `make install` puts them */
#endif
#ifndef T4_VERSION
#define T4_VERSION "unknown"
#endif

#define MAX_NAME 32
#define MAX_OPTIONS 256
#define MAX_ROLES 16
#define ENTRY_SYMBOL "t4_plugin_v1"

_Static_assert(sizeof(void *) == 8, "the ABI's tables are frozen for 64-bit machines");
/* Sizes as of ABI 1.0: less than that is no table of this major. */
#define PLUGIN_SIZE_1_0 (offsetof(struct t4_plugin, unload) + sizeof(void (*)(void *)))
#define OPTION_SIZE_1_0 (offsetof(struct t4_option, doc) + sizeof(const char *))

/* What host->alloc() puts before each block. */
struct block {
    _Alignas(16) struct block *next;
    struct block *prev;
    size_t size;
};

struct plugin {
    struct t4_host host;         /* [const after load] */
    struct t4_plugin descriptor; /* [const after load] adopted: members it lacks are 0 */
    struct t4_option *options;   /* [const after load] adopted, n_options */
    struct t4_values values;     /* [const after load] */
    void *library;               /* [const after load] of dlopen() */
    void *state;                 /* [const after load] what load() gave */
    bool loaded;                 /* [const after load] load() was called */
    char name[MAX_NAME + 1];     /* [const after load] */
    struct mutex lock;
    struct block blocks; /* [lock] ring of what is allocated */
    size_t fail_in;      /* [lock] this many allocations from now one fails; 0: none */
};

/* --- host services ------------------------------------------------------------------ */

static struct plugin *
plugin_of(const struct t4_host *host)
{
    return container_of((uintptr_t)host, struct plugin, host);
}

static void *
host_alloc(const struct t4_host *host, size_t n)
{
    struct plugin *p = plugin_of(host);
    struct block *b;
    bool fails;

    if (n > SIZE_MAX - sizeof *b)
        return NULL;
    b = malloc(sizeof *b + n);
    if (b == NULL)
        return NULL;
    b->size = n;
    mutex_lock(&p->lock);
    fails = p->fail_in > 0 && --p->fail_in == 0;
    if (!fails) {
        b->next = &p->blocks;
        b->prev = p->blocks.prev;
        b->prev->next = b->next->prev = b;
    }
    mutex_unlock(&p->lock);
    if (!fails)
        return b + 1;
    free(b);
    return NULL;
}

static void
host_free(const struct t4_host *host, void *memory)
{
    struct plugin *p = plugin_of(host);
    struct block *b;

    if (memory == NULL)
        return;
    b = (struct block *)memory - 1;
    mutex_lock(&p->lock);
    b->next->prev = b->prev;
    b->prev->next = b->next;
    mutex_unlock(&p->lock);
    free(b);
}

static void
host_log(const struct t4_host *host, int32_t level, const char *message)
{
    enum log_level l = level <= T4_LOG_ERROR   ? LOG_LEVEL_ERROR
                       : level >= T4_LOG_DEBUG ? LOG_LEVEL_DEBUG
                                               : (enum log_level)level;

    if (log_enabled(l))
        log_write(l, message, "plugin", plugin_of(host)->name, NULL);
}

static t4_status
host_fail(struct t4_call *call, t4_status status, const char *message, const char *detail,
          const char *hint)
{
    struct error *e = call != NULL ? call->error : NULL;

    if (status >= T4_OK || status < T4_E_IO)
        status = T4_E_INTERNAL;
    if (message == NULL)
        message = status_text(status);
    if (detail != NULL)
        error_set(e, status, "%s: %s", message, detail);
    else
        error_set(e, status, "%s", message);
    if (hint != NULL)
        error_hint(e, "%s", hint);
    return status;
}

static uint64_t
host_deadline_ns(const struct t4_call *call)
{
    return call != NULL ? call->deadline_ns : 0;
}

static int32_t
host_cancelled(const struct t4_call *call)
{
    if (call == NULL || call->cancelled == NULL)
        return 0;
    return __atomic_load_n(call->cancelled, __ATOMIC_ACQUIRE) != 0;
}

static uint64_t
host_now_ns(void)
{
    struct env *env = env_posix();

    return env->boot_ns(env->state);
}

static void
host_random(void *buffer, size_t n)
{
    struct env *env = env_posix();

    env->random(env->state, buffer, n);
}

static const struct t4_host host_services = {
    .size = sizeof(struct t4_host),
    .abi_major = T4_ABI_MAJOR,
    .abi_minor = T4_ABI_MINOR,
    .version = T4_VERSION,
    .alloc = host_alloc,
    .free = host_free,
    .log = host_log,
    .fail = host_fail,
    .deadline_ns = host_deadline_ns,
    .cancelled = host_cancelled,
    .now_ns = host_now_ns,
    .random = host_random,
};

/* Gives back what the plugin did not, and says so: it is the plugin's mistake. */
static size_t
drop_blocks(struct plugin *p)
{
    size_t count = 0, bytes = 0;

    for (struct block *b = p->blocks.next, *next; b != &p->blocks; b = next) {
        next = b->next;
        count++;
        bytes += b->size;
        free(b);
    }
    if (count > 0)
        log_printf(LOG_LEVEL_WARN,
                   "plugin \"%s\" left %zu allocations (%zu bytes) behind", p->name,
                   count, bytes);
    return count;
}

size_t
plugin_allocations(struct plugin *p)
{
    size_t count = 0;

    mutex_lock(&p->lock);
    for (struct block *b = p->blocks.next; b != &p->blocks; b = b->next)
        count++;
    mutex_unlock(&p->lock);
    return count;
}

size_t
plugin_fail_allocation(struct plugin *p, size_t nth)
{
    size_t left;

    mutex_lock(&p->lock);
    left = p->fail_in;
    p->fail_in = nth;
    mutex_unlock(&p->lock);
    return left;
}

/* --- the file ----------------------------------------------------------------------- */

static t4_status
check_name(const char *name, struct error *error)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

    if (n > 0 && n <= MAX_NAME && name[n] == '\0' && name[0] >= 'a' && name[0] <= 'z')
        return T4_OK;
    error_set(error, T4_E_INVALID, "\"%.64s\" is not the name of a plugin", name);
    error_hint(
        error,
        "a name is 1 to %d of a-z, 0-9 and _, a letter first, without folder and .so",
        MAX_NAME);
    return T4_E_INVALID;
}

/* Where plugins are when the caller did not say; the text is in `buffer` or static. */
static const char *
default_dir(char buffer[PATH_MAX])
{
    static const char beside[] = "/plugins";
    const char *dir = secure_getenv("T4_PLUGIN_DIR");
    struct stat st;
    ssize_t n;
    char *slash;

    if (dir != NULL && dir[0] != '\0')
        return dir;
    n = readlink("/proc/self/exe", buffer, PATH_MAX - sizeof beside);
    if (n > 0) {
        buffer[n] = '\0';
        slash = strrchr(buffer, '/');
        if (slash != NULL) {
            memcpy(slash, beside, sizeof beside);
            if (stat(buffer, &st) == 0 && S_ISDIR(st.st_mode))
                return buffer;
        }
    }
    return T4_PLUGIN_DIR;
}

/*
 * Code that runs with the server's rights may be replaced only by who has these rights
 * anyway.  A group that is the server's own or root's is as good as its user.
 */
static t4_status
check_owner(const char *path, const char *what, bool folder, struct error *error)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        int err = errno;
        t4_status status = err == ENOENT || err == ENOTDIR ? T4_E_NOTFOUND : T4_E_IO;

        error_set(error, status, "%s %s: %s", what, path, strerror(err));
        error_hint(error, "check the plugin's name; T4_PLUGIN_DIR names another folder");
        return status;
    }
    if (folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))
        return error_set(error, T4_E_INVALID, "%s %s is not a %s", what, path,
                         folder ? "folder" : "regular file");
    if (st.st_uid != 0 && st.st_uid != geteuid()) {
        error_set(error, T4_E_DENIED,
                  "%s %s belongs to user %u, neither root nor the server's user (%u)",
                  what, path, (unsigned)st.st_uid, (unsigned)geteuid());
        error_hint(error, "chown root %s", path);
        return T4_E_DENIED;
    }
    if ((st.st_mode & S_IWOTH) ||
        ((st.st_mode & S_IWGRP) && st.st_gid != 0 && st.st_gid != getegid())) {
        error_set(error, T4_E_DENIED, "%s %s may be written by others (mode %04o)", what,
                  path, (unsigned)st.st_mode & 07777);
        error_hint(error, "chmod go-w %s", path);
        return T4_E_DENIED;
    }
    return T4_OK;
}

static t4_status
open_library(const char *path, void **out, struct error *error)
{
    const char *why;

    *out = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*out != NULL)
        return T4_OK;
    why = dlerror();
    error_set(error, T4_E_INVALID, "cannot load %s: %s", path,
              why != NULL ? why : "no reason");
    error_hint(error,
               "the file is damaged, of another architecture, or a library that it "
               "needs is missing (ldd shows which)");
    return T4_E_INVALID;
}

/* --- the descriptor ----------------------------------------------------------------- */

static t4_status
find_descriptor(void *library, const char *path, const struct t4_plugin **out,
                struct error *error)
{
    t4_plugin_entry_fn *entry;
    void *symbol = dlsym(library, ENTRY_SYMBOL);

    if (symbol == NULL) {
        error_set(error, T4_E_INVALID, "%s does not export " ENTRY_SYMBOL "()", path);
        error_hint(error,
                   "it is no plugin of t4, or one for another major of the ABI; this "
                   "server has %d.%d",
                   T4_ABI_MAJOR, T4_ABI_MINOR);
        return T4_E_INVALID;
    }
    memcpy(&entry, &symbol, sizeof entry);
    *out = entry();
    if (*out == NULL)
        return error_set(error, T4_E_INVALID, "%s: " ENTRY_SYMBOL "() gave no descriptor",
                         path);
    return T4_OK;
}

/* The four lines that protect the rest, in their order. */
static t4_status
check_head(const struct t4_plugin *d, const char *name, struct error *error)
{
    if (d->magic != T4_PLUGIN_MAGIC) {
        error_set(error, T4_E_INVALID, "plugin \"%s\": magic is 0x%08x, not 0x%08x", name,
                  d->magic, T4_PLUGIN_MAGIC);
        error_hint(error, "the descriptor must begin with T4_PLUGIN_HEAD(...)");
        return T4_E_INVALID;
    }
    if (d->size < PLUGIN_SIZE_1_0) {
        error_set(
            error, T4_E_INVALID,
            "plugin \"%s\": size of its descriptor is %u bytes, at least %zu are needed",
            name, d->size, PLUGIN_SIZE_1_0);
        error_hint(error, "build it against this server's t4_plugin.h");
        return T4_E_INVALID;
    }
    if (d->abi_major != T4_ABI_MAJOR) {
        error_set(
            error, T4_E_UNSUPPORTED,
            "plugin \"%s\": abi_major is %u (it was built for ABI %u.%u), the server has "
            "%d.%d",
            name, d->abi_major, d->abi_major, d->abi_minor, T4_ABI_MAJOR, T4_ABI_MINOR);
        error_hint(error, "use a build of the plugin for ABI %d", T4_ABI_MAJOR);
        return T4_E_UNSUPPORTED;
    }
    if (d->needs_minor > T4_ABI_MINOR) {
        error_set(
            error, T4_E_UNSUPPORTED,
            "plugin \"%s\": needs_minor is %u (it needs ABI %u.%u), the server has %d.%d",
            name, d->needs_minor, d->abi_major, d->needs_minor, T4_ABI_MAJOR,
            T4_ABI_MINOR);
        error_hint(error, "use a newer server or an older build of the plugin");
        return T4_E_UNSUPPORTED;
    }
    if (d->option_size < OPTION_SIZE_1_0) {
        error_set(error, T4_E_INVALID,
                  "plugin \"%s\": option_size is %u bytes, at least %zu are needed", name,
                  d->option_size, OPTION_SIZE_1_0);
        error_hint(error, "build it against this server's t4_plugin.h");
        return T4_E_INVALID;
    }
    return T4_OK;
}

static t4_status
check_body(const struct t4_plugin *d, const char *name, struct error *error)
{
    if (d->name == NULL || strcmp(d->name, name) != 0) {
        error_set(error, T4_E_INVALID,
                  "plugin \"%s\": its descriptor's name is \"%.64s\"", name,
                  d->name != NULL ? d->name : "");
        error_hint(error, "the file must be named after the plugin: <name>.so");
        return T4_E_INVALID;
    }
    if (d->n_options > MAX_OPTIONS || (d->n_options > 0 && d->options == NULL))
        return error_set(
            error, T4_E_INVALID,
            "plugin \"%s\": n_options is %zu with%s options; 0 to %d are possible", name,
            d->n_options, d->options == NULL ? "out" : "", MAX_OPTIONS);
    if (d->n_roles == 0 || d->n_roles > MAX_ROLES || d->roles == NULL)
        return error_set(
            error, T4_E_INVALID,
            "plugin \"%s\": n_roles is %zu with%s roles; 1 to %d are possible", name,
            d->n_roles, d->roles == NULL ? "out" : "", MAX_ROLES);
    for (size_t i = 0; i < d->n_roles; i++)
        if (d->roles[i].name == NULL || d->roles[i].ops == NULL)
            return error_set(error, T4_E_INVALID, "plugin \"%s\": role %zu has no %s",
                             name, i, d->roles[i].name == NULL ? "name" : "ops");
    return T4_OK;
}

/* Copies descriptor and options, which may be longer than ours; shorter is refused. */
static t4_status
adopt(struct plugin *p, const struct t4_plugin *theirs, struct error *error)
{
    size_t size =
        theirs->size < sizeof p->descriptor ? theirs->size : sizeof p->descriptor;
    size_t option_size = sizeof *p->options;
    t4_status st;

    memcpy(&p->descriptor, theirs, size);
    st = check_body(&p->descriptor, p->name, error);
    if (st != T4_OK)
        return st;
    if (theirs->option_size < option_size)
        option_size = theirs->option_size;
    p->options = mem_zalloc(theirs->n_options * sizeof *p->options);
    for (size_t i = 0; i < theirs->n_options; i++) {
        memcpy(&p->options[i], (const char *)theirs->options + i * theirs->option_size,
               option_size);
        if (p->options[i].name == NULL || p->options[i].name[0] == '\0')
            return error_set(error, T4_E_INVALID, "plugin \"%s\": option %zu has no name",
                             p->name, i);
    }
    p->descriptor.options = p->options;
    p->descriptor.option_size = sizeof *p->options;
    return T4_OK;
}

/* --- life --------------------------------------------------------------------------- */

static t4_status
call_load(struct plugin *p, struct error *error)
{
    struct error own = {0};
    struct t4_call call = {.error = error != NULL ? error : &own};
    t4_status st;

    if (p->descriptor.load == NULL)
        return T4_OK;
    call.error->message[0] = call.error->hint[0] = '\0';
    st = p->descriptor.load(&p->host, &call, &p->values, &p->state);
    if (st == T4_OK)
        return T4_OK;
    if (st > T4_OK || st < T4_E_IO)
        st = T4_E_INTERNAL;
    if (call.error->message[0] == '\0')
        error_set(call.error, st, "%s", status_text(st));
    call.error->status = st;
    return error_wrap(call.error, "plugin \"%s\" refused to load", p->name);
}

static size_t
plugin_delete(struct plugin *p)
{
    size_t left = drop_blocks(p);

    options_free(&p->values);
    mem_free(p->options);
    mutex_destroy(&p->lock);
    mem_free(p);
    return left;
}

const char *
plugin_folder(const char *dir, char *buffer, size_t n)
{
    char own[PATH_MAX];

    if (dir != NULL)
        return dir;
    snprintf(buffer, n, "%s", default_dir(own));
    return buffer;
}

/* Everything up to the descriptor; plugin_unload() does not call unload() yet. */
t4_status
plugin_describe(const char *dir, const char *name, struct plugin **out,
                struct error *error)
{
    char buffer[PATH_MAX], path[PATH_MAX];
    const struct t4_plugin *theirs;
    struct plugin *p;
    void *library;
    t4_status st;

    *out = NULL;
    st = check_name(name, error);
    if (st != T4_OK)
        return st;
    if (dir == NULL)
        dir = default_dir(buffer);
    if ((size_t)snprintf(path, sizeof path, "%s/%s.so", dir, name) >= sizeof path)
        return error_set(error, T4_E_INVALID, "the plugins' folder has too long a name");
    st = check_owner(dir, "plugins' folder", true, error);
    if (st == T4_OK)
        st = check_owner(path, "plugin", false, error);
    if (st == T4_OK)
        st = open_library(path, &library, error);
    if (st != T4_OK)
        return st;

    p = mem_zalloc(sizeof *p);
    p->host = host_services;
    p->library = library;
    memcpy(p->name, name, strlen(name) + 1);
    mutex_init(&p->lock);
    p->blocks.next = p->blocks.prev = &p->blocks;

    st = find_descriptor(library, path, &theirs, error);
    if (st == T4_OK)
        st = check_head(theirs, name, error);
    if (st == T4_OK)
        st = adopt(p, theirs, error);
    if (st != T4_OK) {
        plugin_delete(p);
        dlclose(library);
        return st;
    }
    *out = p;
    return T4_OK;
}

t4_status
plugin_load(const char *dir, const char *name, const struct plugin_setting *settings,
            size_t n_settings, struct plugin **out, struct error *error)
{
    struct plugin *p;
    t4_status st = plugin_describe(dir, name, &p, error);

    *out = NULL;
    if (st != T4_OK)
        return st;
    st = options_parse(name, p->options, p->descriptor.n_options, settings, n_settings,
                       &p->values, error);
    if (st == T4_OK)
        st = call_load(p, error);
    if (st != T4_OK) {
        void *library = p->library;

        plugin_delete(p);
        dlclose(library);
        return st;
    }
    p->loaded = true;
    *out = p;
    return T4_OK;
}

size_t
plugin_unload(struct plugin *p)
{
    if (p == NULL)
        return 0;
    if (p->loaded && p->descriptor.unload != NULL)
        p->descriptor.unload(p->state);
    return plugin_delete(p);
}

const struct t4_plugin *
plugin_descriptor(const struct plugin *p)
{
    return &p->descriptor;
}

void *
plugin_state(const struct plugin *p)
{
    return p->state;
}

/* --- roles -------------------------------------------------------------------------- */

static t4_status
no_role(const struct plugin *p, uint32_t kind, const char *role_name, struct error *error)
{
    static const char *const kinds[] = {"unknown", "object store", "storage engine",
                                        "auth"};
    char list[256] = "";
    size_t used = 0;

    for (size_t i = 0; i < p->descriptor.n_roles && used < sizeof list; i++) {
        const struct t4_role *r = &p->descriptor.roles[i];

        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s \"%s\"",
                                 i > 0 ? ", " : "",
                                 kinds[r->kind <= T4_ROLE_AUTH ? r->kind : 0], r->name);
    }
    error_set(error, T4_E_NOTFOUND, "plugin \"%s\" has no %s named \"%.64s\"", p->name,
              kinds[kind <= T4_ROLE_AUTH ? kind : 0], role_name);
    error_hint(error, "it has: %s", list);
    return T4_E_NOTFOUND;
}

t4_status
plugin_role(const struct plugin *p, uint32_t kind, const char *role_name, void *table,
            size_t table_size, struct error *error)
{
    struct {
        uint32_t size, min_minor; /* how every role's table begins */
    } head;

    memset(table, 0, table_size);
    for (size_t i = 0; i < p->descriptor.n_roles; i++) {
        const struct t4_role *r = &p->descriptor.roles[i];

        if (r->kind != kind || strcmp(r->name, role_name) != 0)
            continue;
        memcpy(&head, r->ops, sizeof head);
        if (head.size < sizeof head)
            return error_set(
                error, T4_E_INVALID,
                "plugin \"%s\": the table of role \"%s\" says it is %u bytes long",
                p->name, role_name, head.size);
        if (head.min_minor > T4_ABI_MINOR) {
            error_set(
                error, T4_E_UNSUPPORTED,
                "plugin \"%s\": role \"%s\" has min_minor %u (it needs ABI %d.%u), the "
                "server has %d.%d",
                p->name, role_name, head.min_minor, T4_ABI_MAJOR, head.min_minor,
                T4_ABI_MAJOR, T4_ABI_MINOR);
            error_hint(error, "use a newer server or an older build of the plugin");
            return T4_E_UNSUPPORTED;
        }
        memcpy(table, r->ops, head.size < table_size ? head.size : table_size);
        return T4_OK;
    }
    return no_role(p, kind, role_name, error);
}
