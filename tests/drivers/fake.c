#define _GNU_SOURCE
#include "fake.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES_MAX 160
#define HANGS -1

/* Recursive, since the encoder reads "device memory" in the middle of its own calls. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct {
    char name[64];
    long calls;
} counted[NAMES_MAX];

long fake_number(const char *variable, long otherwise)
{
    const char *value = getenv(variable);
    return value && *value ? strtol(value, NULL, 0) : otherwise;
}

static void log_line(const char *line, size_t length)
{
    static int file = -2;
    if (file == -2) {
        const char *path = getenv("FAKE_LOG");
        file = path && *path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
        if (path && *path && file < 0) {
            perror("fake driver: FAKE_LOG");
            abort();
        }
    }
    /* One write a line: other processes and the other library append to the same file. */
    if (file >= 0 && write(file, line, length) != (ssize_t)length) {
        perror("fake driver: FAKE_LOG");
        abort();
    }
}

static long count(const char *name)
{
    for (size_t index = 0; index < NAMES_MAX; index++) {
        if (!counted[index].name[0])
            snprintf(counted[index].name, sizeof counted[index].name, "%s", name);
        if (!strcmp(counted[index].name, name))
            return ++counted[index].calls;
    }
    abort();
}

/* FAKE_FAIL is a list of name:n:code, which means: from the n-th call of that name on, return this code. */
static int wanted(const char *name, long call)
{
    const char *faults = getenv("FAKE_FAIL");
    char copy[1024], *rest = copy, *fault;
    snprintf(copy, sizeof copy, "%s", faults ? faults : "");
    while ((fault = strsep(&rest, ","))) {
        char of[64];
        long from;
        int code;
        if (sscanf(fault, "%63[^:]:%ld:%d", of, &from, &code) == 3 && !strcmp(of, name) && call >= from)
            return code;
    }
    return 0;
}

void fake_lock(void)
{
    pthread_mutex_lock(&lock);
}

void fake_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

int fake_begin(struct call *call, const char *function, const char *format, ...)
{
    fake_lock();
    snprintf(call->name, sizeof call->name, "%s", function);
    char *version = strstr(call->name, "_v");
    if (version)
        *version = 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call->words, sizeof call->words, format, arguments);
    va_end(arguments);
    call->why = NULL;
    int code = wanted(call->name, count(call->name));
    while (code == HANGS)
        pause();
    return code ? fake_refuse(call, code, "FAKE_FAIL") : 0;
}

int fake_refuse(struct call *call, int code, const char *why)
{
    call->why = why;
    return code;
}

int fake_end(struct call *call, int code)
{
    fake_note("%s pid=%d%s%s result=%d%s%s", call->name, (int)getpid(), *call->words ? " " : "", call->words, code,
              call->why ? " why=" : "", call->why ? call->why : "");
    fake_unlock();
    return code;
}

void fake_note(const char *format, ...)
{
    char line[600];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= (int)sizeof line - 1)
        abort();
    line[length++] = '\n';
    log_line(line, (size_t)length);
}
