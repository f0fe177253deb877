/*
 * no_memory.c - LD_PRELOAD: the n-th allocation of a program fails.
 *
 * T4_NOMEM_CONTROL names a file of `struct control`, which is mapped: a test arms it from outside
 * and reads there what happened.  Counted is what the program itself and the libraries named in
 * T4_NOMEM_OBJECTS (beginnings of file names, parted by colons) ask for, on any thread; the rest,
 * libc's own needs too, is let alone.  Without the variable, or not armed, nothing is changed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* As regress/lib/nomemory.py writes and reads it. */
struct control {
    _Atomic uint32_t armed;
    _Atomic uint32_t all;    /* the later ones fail, too */
    _Atomic uint64_t nth;    /* which one fails, from 1 on */
    _Atomic uint64_t seen;   /* how many there were */
    _Atomic uint64_t failed; /* how many of them failed */
};

static struct control *_Atomic control;

__attribute__((constructor)) static void
begin(void)
{
    const char *path = getenv("T4_NOMEM_CONTROL");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *p;

    if (fd < 0)
        return;
    p = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        control = p;
}

/* Does the code at `from` belong to what is tested? */
static bool
counts(const void *from)
{
    const char *names = getenv("T4_NOMEM_OBJECTS"), *file, *slash;
    struct dl_find_object found;
    size_t n;

    if (_dl_find_object((void *)(uintptr_t)from, &found) != 0)
        return false;
    file = found.dlfo_link_map->l_name;
    if (file[0] == '\0')
        return true; /* the program */
    slash = strrchr(file, '/');
    file = slash != NULL ? slash + 1 : file;
    while (names != NULL && *names != '\0') {
        n = strcspn(names, ":");
        if (strncmp(file, names, n) == 0)
            return true;
        names += n + (names[n] == ':');
    }
    return false;
}

static bool
fails(const void *from)
{
    struct control *c = atomic_load_explicit(&control, memory_order_relaxed);
    uint64_t nth, n;

    if (c == NULL || !atomic_load(&c->armed) || !counts(from))
        return false;
    nth = atomic_load(&c->nth);
    n = atomic_fetch_add(&c->seen, 1) + 1;
    if (n != nth && !(n > nth && atomic_load(&c->all)))
        return false;
    atomic_fetch_add(&c->failed, 1);
    errno = ENOMEM;
    return true;
}

#define FROM __builtin_return_address(0)
#define REAL(name)                                                                       \
    static __typeof__(&name) real;                                                       \
    if (real == NULL)                                                                    \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

void *
malloc(size_t n)
{
    REAL(malloc);
    return fails(FROM) ? NULL : real(n);
}

void *
calloc(size_t n, size_t size)
{
    REAL(calloc);
    return fails(FROM) ? NULL : real(n, size);
}

void *
realloc(void *p, size_t n)
{
    REAL(realloc);
    return fails(FROM) ? NULL : real(p, n);
}

int
posix_memalign(void **out, size_t alignment, size_t n)
{
    REAL(posix_memalign);
    return fails(FROM) ? ENOMEM : real(out, alignment, n);
}

void *
aligned_alloc(size_t alignment, size_t n)
{
    REAL(aligned_alloc);
    return fails(FROM) ? NULL : real(alignment, n);
}
