/* The clock of scripts/chaos: the true time plus what stands in a file, for whoever is started with this library preloaded.
 *
 * A time is one read of shared memory: right also within a signal handler, where PostgreSQL asks whether a timeout is over. (libfaketime gives
 * the true time there: a server with it has no statement_timeout, and never finds a deadlock.) Only the time of day is led; waiting is not.
 * The system's own times of files are led with it, so that a file is as old as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const volatile int64_t *ahead; /* in nanoseconds */
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (shared != MAP_FAILED)
        ahead = shared;
}

static void lead(int64_t *seconds, int64_t *nanoseconds) {
    int64_t by = ahead ? *ahead : 0;
    int64_t sum = *nanoseconds + by % SECOND;
    int64_t over = sum < 0 ? -1 : sum / SECOND;
    *seconds += by / SECOND + over;
    *nanoseconds = sum - over * SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = real ? real(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t seconds = at->tv_sec, nanoseconds = at->tv_nsec;
        lead(&seconds, &nanoseconds);
        at->tv_sec = seconds;
        at->tv_nsec = nanoseconds;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int statx(int folder, const char *restrict path, int flags, unsigned int mask, struct statx *restrict found) {
    int failed = (int)syscall(SYS_statx, folder, path, flags, mask, found);
    struct statx_timestamp *times[] = {&found->stx_atime, &found->stx_btime, &found->stx_ctime, &found->stx_mtime};
    for (int i = 0; !failed && i < 4; i++) {
        int64_t seconds = times[i]->tv_sec, nanoseconds = times[i]->tv_nsec;
        lead(&seconds, &nanoseconds);
        times[i]->tv_sec = seconds;
        times[i]->tv_nsec = nanoseconds;
    }
    return failed;
}

/* What a program sets as a file's time is led already. */
static void back(struct timespec *at) {
    if (at->tv_nsec == UTIME_NOW || at->tv_nsec == UTIME_OMIT)
        return;
    int64_t by = ahead ? *ahead : 0;
    int64_t sum = at->tv_nsec - by % SECOND;
    int64_t over = sum < 0 ? -1 : sum / SECOND;
    at->tv_sec += over - by / SECOND;
    at->tv_nsec = sum - over * SECOND;
}

int futimens(int file, const struct timespec times[2]) {
    struct timespec led[2];
    if (!times)
        return (int)syscall(SYS_utimensat, file, NULL, NULL, 0);
    led[0] = times[0];
    led[1] = times[1];
    back(&led[0]);
    back(&led[1]);
    return (int)syscall(SYS_utimensat, file, NULL, led, 0);
}
