/*
 * options.h - parsing and range-checking the settings of a plugin, or of the library.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PLUGIN_OPTIONS_H
#define PLUGIN_OPTIONS_H

#include "plugin/plugin.h"

/*
 * Makes the values for options[n_options] from settings and defaults, in the order of the
 * options.  *out is owned by the caller: options_free(), which overwrites the texts first
 * (I14).  INVALID: unknown, repeated, missing, malformed or out of range; the report
 * names the option, its range and, for an unknown one, the nearest.  On failure *out is
 * empty.  plugin NULL: the options are the library's own, and are called so.
 */
t4_status options_parse(const char *plugin, const struct t4_option *options,
                        size_t n_options, const struct plugin_setting *settings,
                        size_t n_settings, struct t4_values *out, struct error *error);
void options_free(struct t4_values *values);

#endif
