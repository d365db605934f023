/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many descriptors in one: each is told of, and one that was freed is not, also by another in the same turn.
 */
#include <dirent.h>
#include <unistd.h>

#include <glib.h>

#include "base/fd-watch.h"

#define MANY 100

typedef struct Pipe {
        int ends[2];
        FdWatch *watch;
        guint told;
        struct Pipe *victim; /* is freed when this one is told; may be itself */
} Pipe;

static void end(Pipe *pipe)
{
        g_clear_pointer(&pipe->watch, fd_watch_free);
}

static void on_ready(gpointer data)
{
        Pipe *pipe = data;

        pipe->told++;
        if (pipe->victim)
                end(pipe->victim);
}

static void open_pipe(Pipe *pipe)
{
        *pipe = (Pipe){ .watch = NULL };
        g_assert_no_errno(pipe2(pipe->ends, 0));
        pipe->watch = fd_watch_new(pipe->ends[0], on_ready, pipe);
}

static void close_pipe(Pipe *pipe)
{
        end(pipe);
        close(pipe->ends[0]);
        if (pipe->ends[1] >= 0)
                close(pipe->ends[1]);
}

static void say(Pipe *pipe)
{
        g_assert_cmpint((int) write(pipe->ends[1], "x", 1), ==, 1);
}

static void hear(Pipe *pipe)
{
        char text;

        g_assert_cmpint((int) read(pipe->ends[0], &text, 1), ==, 1);
        pipe->told = 0;
}

static guint turn(void)
{
        guint turns = 0;

        while (g_main_context_iteration(NULL, FALSE) && turns < 5)
                turns++;
        return turns;
}

static guint count_descriptors(void)
{
        DIR *directory = opendir("/proc/self/fd");
        guint count = 0;

        while (readdir(directory))
                count++;
        closedir(directory);
        return count;
}

static void many(void)
{
        Pipe pipes[MANY];
        guint before;

        turn(); /* the main loop's own are there from now on */
        before = count_descriptors();
        for (guint i = 0; i < MANY; i++)
                open_pipe(&pipes[i]);
        g_assert_cmpuint(turn(), ==, 0);
        for (guint i = 0; i < MANY; i += 2)
                say(&pipes[i]);
        turn();
        for (guint i = 0; i < MANY; i++) {
                g_assert_true((pipes[i].told > 0) == (i % 2 == 0));
                if (i % 2 == 0)
                        hear(&pipes[i]);
        }
        g_assert_cmpuint(turn(), ==, 0);
        /* the end is told as well, and again until it is heeded */
        close(pipes[7].ends[1]);
        pipes[7].ends[1] = -1;
        g_assert_cmpuint(turn(), ==, 5);
        g_assert_cmpuint(pipes[7].told, >=, 5);
        for (guint i = 0; i < MANY; i++)
                close_pipe(&pipes[i]);
        g_assert_cmpuint(turn(), ==, 0);
        g_assert_cmpuint(count_descriptors(), ==, before);
}

/* Whichever of the two is told first frees the other, which is ready as well. */
static void freed_by_another(void)
{
        Pipe pipes[2];

        for (guint i = 0; i < 2; i++)
                open_pipe(&pipes[i]);
        pipes[0].victim = &pipes[1];
        pipes[1].victim = &pipes[0];
        say(&pipes[0]);
        say(&pipes[1]);
        turn();
        g_assert_cmpuint(MIN(pipes[0].told, pipes[1].told), ==, 0);
        g_assert_cmpuint(MAX(pipes[0].told, pipes[1].told), >, 0);
        for (guint i = 0; i < 2; i++)
                close_pipe(&pipes[i]);
}

static void freed_by_itself(void)
{
        Pipe pipe;

        open_pipe(&pipe);
        pipe.victim = &pipe;
        say(&pipe);
        turn();
        g_assert_cmpuint(pipe.told, ==, 1);
        g_assert_cmpuint(turn(), ==, 0);
        close_pipe(&pipe);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/fd-watch/many", many);
        g_test_add_func("/fd-watch/freed-by-another", freed_by_another);
        g_test_add_func("/fd-watch/freed-by-itself", freed_by_itself);
        return g_test_run();
}
