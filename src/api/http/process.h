/*
 * process.h - what the operating system says about this process, as metrics.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef API_HTTP_PROCESS_H
#define API_HTTP_PROCESS_H

#include "base/buffer.h"

/*
 * Appends the process_* metrics under the names that Prometheus' client libraries use.  What
 * cannot be read (no /proc) is left out.  Any thread.
 */
void process_render(struct buffer *out);

#endif
