/*
 * test_empty.c - a shared object that is no plugin: it exports another symbol.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
__attribute__((visibility("default"))) int t4_plugin_v0(void);

int
t4_plugin_v0(void)
{
    return 0;
}
