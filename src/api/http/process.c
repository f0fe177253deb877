/*
 * process.c - reads memory, CPU time, descriptors and start time of this process.
 * See process.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api/http/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/metrics.h"

static void
append(struct buffer *out, const char *name, const char *kind, const char *help,
       double value)
{
    metrics_head(out, name, kind, help);
    metrics_append(out, "%s %.15g\n", name, value);
}

static double
seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool
read_pages(double *virtual_pages, double *resident)
{
    FILE *in = fopen("/proc/self/statm", "re");
    bool found = in != NULL && fscanf(in, "%lf %lf", virtual_pages, resident) == 2;

    if (in != NULL)
        fclose(in);
    return found;
}

/* Field 22 of stat: clock ticks from boot to start.  The name (field 2) may hold anything. */
static bool
read_start_ticks(double *out)
{
    FILE *in = fopen("/proc/self/stat", "re");
    char text[1024], *p;
    size_t n;

    if (in == NULL)
        return false;
    n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[n] = '\0';
    p = strrchr(text, ')');
    for (int field = 2; p != NULL && field < 22; field++) {
        p = strchr(p, ' ');
        p = p != NULL ? p + 1 : NULL;
    }
    return p != NULL && sscanf(p, "%lf", out) == 1;
}

static bool
count_descriptors(double *out)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;

    if (dir == NULL)
        return false;
    *out = -1; /* the one of this very listing */
    while ((e = readdir(dir)) != NULL)
        *out += e->d_name[0] != '.';
    closedir(dir);
    return true;
}

void
process_render(struct buffer *out)
{
    struct rlimit limit;
    double v, page = (double)sysconf(_SC_PAGESIZE), resident;

    append(out, "process_cpu_seconds_total", "counter",
           "CPU time of the process, user and system, in seconds",
           seconds(CLOCK_PROCESS_CPUTIME_ID));
    if (read_pages(&v, &resident)) {
        append(out, "process_resident_memory_bytes", "gauge", "Resident memory in bytes",
               resident * page);
        append(out, "process_virtual_memory_bytes", "gauge",
               "Address space in use, in bytes", v * page);
    }
    if (getrlimit(RLIMIT_AS, &limit) == 0) {
        append(out, "process_virtual_memory_max_bytes", "gauge",
               "Limit of the address space in bytes", (double)limit.rlim_cur);
    }
    if (read_start_ticks(&v)) {
        double running = seconds(CLOCK_BOOTTIME) - v / (double)sysconf(_SC_CLK_TCK);

        append(out, "process_start_time_seconds", "gauge",
               "Start of the process in seconds since 1970",
               seconds(CLOCK_REALTIME) - running);
    }
    if (count_descriptors(&v)) {
        append(out, "process_open_fds", "gauge", "Open file descriptors", v);
        append(out, "os_fd_used", "gauge", "Open file descriptors", v);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        append(out, "process_max_fds", "gauge", "Limit of open file descriptors",
               (double)limit.rlim_cur);
        append(out, "os_fd_limit", "gauge", "Limit of open file descriptors",
               (double)limit.rlim_cur);
    }
}
