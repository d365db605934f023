/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/inspect.h"

/* Real images in a directory of the test's own, and looks at them. */

extern char *place; /* the directory, which anybody may pass */

void images_set_up(void);
void images_tear_down(void);

/* A path in it. */
char *at(const char *name);

/* Runs a command there, which has to succeed; what it wrote. */
char *run(const char *first, ...) G_GNUC_NULL_TERMINATED;
char *run_command(const char *const *command);
/* The same where it may fail. */
gboolean try_command(const char *const *command, char **ret_output, char **ret_complaint);

#define RUN(...) g_free(run(__VA_ARGS__, NULL))
#define CREATE(...) RUN("qemu-img", "create", "-q", "-f", __VA_ARGS__)
#define SIZE "4M"

/* What a look has come to. */
typedef struct {
        GPtrArray *layers;
        GError *error;
        guint times;
} Answer;

typedef void (*Look)(const InspectRequest *request, InspectDone done, gpointer data);

void on_answer(GPtrArray *layers, const GError *error, gpointer data);
/* Waits for it. `name` is in the directory, or absolute, or a URI. */
Answer look_by(Look look, const char *name, InspectRequest request);
void clear(Answer *answer);
/* Layer `i`, which has to be there. */
const ImageLayer *layer(const Answer *answer, guint i);
/* An error with just that message, in which "@" stands for the directory. */
void expect_error(Answer *answer, int code, const char *message);

#define LOOK(name, ...) look_by(image_inspect, name, (InspectRequest){ .follow = TRUE, __VA_ARGS__ })
#define EXPECT_ERROR(name, code, message, ...)                    \
        do {                                                      \
                Answer refused = LOOK(name, __VA_ARGS__);         \
                expect_error(&refused, BJ_ERROR_##code, message); \
        } while (0)

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Answer, clear)
