/* What both fake driver libraries share: the log of calls, and faults that are asked for.
 *
 * Every entry point is a pair of fake_begin and fake_end. All of them hold one lock in between, so that the state
 * behind them needs none of its own and the lines of the log are in the order in which things happened.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

struct call {
    char name[64]; /* without the _v2 of an entry point: tests should not have to know who asks for which */
    char words[320];
    const char *why;
};

/* Start a call: log its arguments when it ends. Returns the code that FAKE_FAIL wants of it, else 0. */
int fake_begin(struct call *call, const char *function, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Say why a call is refused; returns `code`, for fake_end. */
int fake_refuse(struct call *call, int code, const char *why);

/* Write the line of a call and return its code. */
int fake_end(struct call *call, int code);

/* For what is asked outside of a call. */
void fake_lock(void);
void fake_unlock(void);

/* A line that is no call of the driver's interface, such as what a call found. */
void fake_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A FAKE_ variable as a number. */
long fake_number(const char *variable, long otherwise);
