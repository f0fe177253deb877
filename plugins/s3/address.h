/*
 * address.h - from s3://bucket/prefix and an endpoint to hosts and paths (private to the
 * plugin).  Pure; any thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef S3_ADDRESS_H
#define S3_ADDRESS_H

#include "text.h"

#define ADDRESS_KEY_MOST 1024u /* bytes of a key as S3 counts them, with the prefix */

enum address_style {
    ADDRESS_AUTO, /* path style with an endpoint of one's own, else virtual-host style */
    ADDRESS_PATH, /* https://host/bucket/key */
    ADDRESS_HOST  /* https://bucket.host/key */
};

struct address {
    char bucket[256];
    char root[ADDRESS_KEY_MOST + 1]; /* "" or the prefix with a final '/' */
    size_t root_length;
    char origin[600];    /* https://host:port */
    char authority[512]; /* host:port as the Host header has it */
    char path[600];      /* before "/key": the endpoint's own path, the bucket */
    bool encrypted, loopback;
};

/*
 * NULL and *out filled, or what is wrong, with *hint (which may become NULL).  endpoint "":
 * AWS's own for the region.
 */
const char *address_parse(struct t4_slice url, const char *endpoint, const char *region,
                          enum address_style style, struct address *out,
                          const char **hint);

#endif
