/*
 * names.c - keys as paths.
 *
 * Every key must have a file of its own, whatever the file system thinks of case, of "..",
 * of long names, or of a name that is both a file and a folder; and the keys of a listing
 * must come in bytewise order without reading the whole tree first.
 *
 * A key is cut at each '/'.  A part is written with a-z, 0-9, '-', '_' and '.' as they are
 * and anything else, a '.' at the beginning of a name too, as %xx; an empty part is "%".
 * All but the last part are folders and end with '+', so the file "a" and the folder "a+"
 * go together.  As soon as the encoded text of a part reaches 200 bytes it is cut there:
 * what it has so far is a folder that ends with '~', the rest, which may be empty, goes on
 * in it.  The cut depends on the bytes before it only; so of two names in one directory
 * neither's bytes of the key begin the other's, but for a file "a" and a folder "a+", and
 * sorting the names of one directory by these bytes sorts the keys.
 *
 * Entry points: dir_path_of(), dir_part_of().  Runs on: any thread; pure.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "dir.h"

static const char hex[] = "0123456789abcdef";

static bool
plain(uint8_t c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           (c == '.' && !first);
}

/* Encodes one byte; returns the length. */
static size_t
encode(char *out, uint8_t c, bool first)
{
    if (plain(c, first)) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = '%';
    out[1] = hex[c >> 4];
    out[2] = hex[c & 15];
    return 3;
}

bool
dir_path_of(struct t4_slice key, char out[DIR_MAX_NAME])
{
    size_t n = 0, start = 0; /* bytes written, where the current name began */

    if (key.len == 0 || key.len > DIR_MAX_KEY)
        return false;
    for (size_t i = 0; i < key.len; i++) {
        uint8_t c = key.data[i];

        if (c == '/') {
            if (n == start)
                out[n++] = '%';
            out[n++] = DIR_FOLDER;
            out[n++] = '/';
            start = n;
            continue;
        }
        n += encode(out + n, c, n == start);
        if (n - start >= DIR_CUT) {
            out[n++] = DIR_MORE;
            out[n++] = '/';
            start = n;
        }
    }
    if (n == start)
        out[n++] = '%';
    out[n] = '\0';
    return true;
}

static int
nibble(char c)
{
    const char *p = c != '\0' ? strchr(hex, c) : NULL;

    return p != NULL ? (int)(p - hex) : -1;
}

int
dir_part_of(const char *name, char out[256], bool *folder)
{
    size_t length = strlen(name), used = 0;
    char again[4], end = length > 0 ? name[length - 1] : '\0';

    *folder = end == DIR_FOLDER || end == DIR_MORE;
    if (*folder)
        length--;
    if (length == 0 || length > DIR_CUT + 2 || (end == DIR_MORE) != (length >= DIR_CUT))
        return -1;
    if (length == 1 && name[0] == '%') /* an empty part */
        goto done;
    for (size_t i = 0; i < length;) {
        bool first = i == 0;
        uint8_t c = (uint8_t)name[i];
        size_t n = 1;

        if (name[i] == '%') {
            int high = i + 2 < length ? nibble(name[i + 1]) : -1;
            int low = high >= 0 ? nibble(name[i + 2]) : -1;

            if (low < 0)
                return -1;
            c = (uint8_t)(high << 4 | low);
            n = 3;
        }
        /* Only the one way in which the byte would be written. */
        if (c == '/' || encode(again, c, first) != n || memcmp(again, name + i, n) != 0)
            return -1;
        out[used++] = (char)c;
        i += n;
        if (i >= DIR_CUT && i < length)
            return -1;
    }
done:
    if (end == DIR_FOLDER)
        out[used++] = '/';
    return (int)used;
}
