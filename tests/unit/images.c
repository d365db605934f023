/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "images.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

char *place;

void images_set_up(void)
{
        g_autofree char *made = g_dir_make_tmp("bj-XXXXXX", NULL);

        g_assert_nonnull(made);
        place = realpath(made, NULL);
        g_assert_no_errno(chmod(place, 0755));
}

void images_tear_down(void)
{
        RUN("rm", "-rf", place);
        free(place);
}

char *at(const char *name)
{
        return g_build_filename(place, name, NULL);
}

gboolean try_command(const char *const *command, char **ret_output, char **ret_complaint)
{
        g_autoptr(GError) error = NULL;
        int status;

        g_assert_true(g_spawn_sync(place, (char **) command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
                                   ret_output, ret_complaint, &status, &error));
        g_assert_no_error(error);
        return g_spawn_check_wait_status(status, NULL);
}

char *run_command(const char *const *command)
{
        g_autofree char *complaint = NULL;
        char *output = NULL;

        if (!try_command(command, &output, &complaint))
                g_error("%s: %s", command[0], complaint);
        return output;
}

char *run(const char *first, ...)
{
        g_autoptr(GPtrArray) command = g_ptr_array_new();
        va_list list;

        va_start(list, first);
        for (const char *word = first; word; word = va_arg(list, const char *))
                g_ptr_array_add(command, (gpointer) word);
        va_end(list);
        g_ptr_array_add(command, NULL);
        return run_command((const char *const *) command->pdata);
}

void on_answer(GPtrArray *layers, const GError *error, gpointer data)
{
        Answer *answer = data;

        g_assert_cmpint(syscall(SYS_gettid), ==, getpid());
        g_assert_true((layers == NULL) == (error != NULL));
        answer->layers = layers ? g_ptr_array_ref(layers) : NULL;
        answer->error = error ? g_error_copy(error) : NULL;
        answer->times++;
}

void clear(Answer *answer)
{
        g_clear_pointer(&answer->layers, g_ptr_array_unref);
        g_clear_error(&answer->error);
}

Answer look_by(Look look, const char *name, InspectRequest request)
{
        g_autofree char *path = *name == '/' || strstr(name, "://") ? g_strdup(name) : at(name);
        Answer answer = { 0 };

        request.path = path;
        look(&request, on_answer, &answer);
        g_assert_cmpuint(answer.times, ==, 0);
        while (answer.times == 0)
                g_main_context_iteration(NULL, TRUE);
        while (g_main_context_iteration(NULL, FALSE))
                ;
        g_assert_cmpuint(answer.times, ==, 1);
        g_assert_cmpint((int) geteuid(), ==, (int) getuid());
        return answer;
}

void expect_error(Answer *answer, int code, const char *message)
{
        g_autoptr(GString) text = g_string_new(message);

        g_string_replace(text, "@", place, 0);
        g_assert_error(answer->error, BJ_ERROR, code);
        g_assert_cmpstr(answer->error->message, ==, text->str);
        clear(answer);
}

const ImageLayer *layer(const Answer *answer, guint i)
{
        g_assert_no_error(answer->error);
        g_assert_cmpuint(i, <, answer->layers->len);
        return answer->layers->pdata[i];
}
