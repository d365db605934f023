/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of a method, read from a message as sd-bus hands it over. */
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "options.h"

static const char *const auto_values[] = { "pivot", "keep", NULL };
static const OptionRule rules[] = {
        { "base", 's' },
        { "auto", 's', auto_values },
        { "active", 'b' },
        { "speed", 't' },
        { "buffer", 't', NULL, 1000 },
        { "granularity", 'u' },
        { "depth", 'u', NULL, 255 },
        { NULL },
};

/* A bus that nobody answers on: enough to make messages. */
static sd_bus *bus;
static int other_end;

static void connect_bus(void)
{
        int fds[2];

        g_assert_no_errno(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
        g_assert_cmpint(sd_bus_new(&bus), >=, 0);
        g_assert_cmpint(sd_bus_set_fd(bus, fds[0], fds[0]), >=, 0);
        g_assert_cmpint(sd_bus_start(bus), >=, 0);
        other_end = fds[1];
}

static sd_bus_message *message_new(void)
{
        sd_bus_message *message = NULL;

        g_assert_cmpint(sd_bus_message_new_method_call(bus, &message, "org.blockjobd1", "/org/blockjobd1",
                                                       "org.blockjobd1.Disk", "Commit"),
                        >=, 0);
        return message;
}

static void message_free(sd_bus_message *message)
{
        sd_bus_message_unref(message);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus_message, message_free)

/* As it is after the bus brought it. */
static void deliver(sd_bus_message *message)
{
        g_assert_cmpint(sd_bus_message_seal(message, 1, 0), >=, 0);
        g_assert_cmpint(sd_bus_message_rewind(message, 1), >=, 0);
}

/* `types` and what follows as for sd_bus_message_append(): "a{sv}", n, key, type, value, … */
static Options *read_options(const OptionRule *table, GError **error, const char *types, ...)
{
        g_autoptr(sd_bus_message) message = message_new();
        Options *options;
        va_list arguments;

        va_start(arguments, types);
        g_assert_cmpint(sd_bus_message_appendv(message, types, arguments), >=, 0);
        va_end(arguments);
        deliver(message);
        options = options_read(message, table, error);
        if (options)
                g_assert_cmpint(sd_bus_message_at_end(message, TRUE), ==, 1);
        return options;
}

/* Checks that it failed with InvalidArgument and these words. */
static void expect_refusal(Options *options, GError **error, const char *text)
{
        g_assert_null(options);
        g_assert_error(*error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        g_assert_cmpstr((*error)->message, ==, text);
        g_clear_error(error);
}

static const Option *option(const Options *options, guint i, const char *key, char type)
{
        const Option *found = options->pdata[i];

        g_assert_cmpstr(found->key, ==, key);
        g_assert_cmpint(found->type, ==, type);
        return found;
}

static void none(void)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = read_options(rules, &error, "a{sv}", 0);
        g_autoptr(GPtrArray) options_of_none = read_options(no_options, &error, "a{sv}", 0);

        g_assert_no_error(error);
        g_assert_cmpuint(options->len, ==, 0);
        g_assert_cmpuint(options_of_none->len, ==, 0);
}

static void each_type(void)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = read_options(rules, &error, "a{sv}", 5, "speed", "t", G_MAXUINT64,
                                                    "base", "s", "/images/\"ä\" b.qcow2", "granularity", "u",
                                                    G_MAXUINT32, "active", "b", 1, "auto", "s", "keep");

        g_assert_no_error(error);
        g_assert_cmpuint(options->len, ==, 5);
        g_assert_cmpuint(option(options, 0, "speed", 't')->number, ==, G_MAXUINT64);
        g_assert_cmpstr(option(options, 1, "base", 's')->text, ==, "/images/\"ä\" b.qcow2");
        g_assert_cmpuint(option(options, 2, "granularity", 'u')->number, ==, G_MAXUINT32);
        g_assert_cmpuint(option(options, 3, "active", 'b')->number, ==, 1);
        g_assert_cmpstr(option(options, 4, "auto", 's')->text, ==, "keep");
        g_assert_true(options_flag(options, "active"));
        g_assert_null(option(options, 0, "speed", 't')->text);
}

static void smallest_values(void)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options =
                read_options(rules, &error, "a{sv}", 4, "speed", "t", (guint64) 0, "granularity", "u", 0,
                             "active", "b", 0, "base", "s", " ");

        g_assert_no_error(error);
        g_assert_cmpuint(options->len, ==, 4);
        g_assert_false(options_flag(options, "active"));
        g_assert_cmpuint(options_number(options, "speed"), ==, 0);
        g_assert_cmpstr(options_text(options, "base"), ==, " ");
}

/* Arguments before and after the options are not touched. */
static void among_others(void)
{
        g_autoptr(sd_bus_message) message = message_new();
        g_autoptr(GError) error = NULL;
        const char *before, *after;

        g_assert_cmpint(sd_bus_message_append(message, "sa{sv}s", "before", 2, "active", "b", 1, "speed",
                                              "t", (guint64) 7, "after"),
                        >=, 0);
        deliver(message);
        g_assert_cmpint(sd_bus_message_read(message, "s", &before), ==, 1);
        g_autoptr(GPtrArray) options = options_read(message, rules, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(options->len, ==, 2);
        g_assert_cmpint(sd_bus_message_read(message, "s", &after), ==, 1);
        g_assert_cmpstr(after, ==, "after");
}

static void unknown(void)
{
        static const char known[] = "known are base, auto, active, speed, buffer, granularity, depth";
        static const char *const keys[] = { "force", "", "Base", "base ", "bas", "%s", "ä" };
        g_autoptr(GError) error = NULL;

        for (guint i = 0; i < G_N_ELEMENTS(keys); i++) {
                g_autofree char *text = g_strdup_printf("unknown option '%s'; %s", keys[i], known);
                expect_refusal(read_options(rules, &error, "a{sv}", 2, "active", "b", 1, keys[i], "b", 1),
                               &error, text);
        }
        expect_refusal(read_options(no_options, &error, "a{sv}", 1, "force", "b", 1), &error,
                       "unknown option 'force'; this method has none");
}

static void wrong_type(void)
{
        g_autoptr(GError) error = NULL;

        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "b", 1), &error,
                       "option 'base' is a string (s), not of type 'b'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "o", "/a"), &error,
                       "option 'base' is a string (s), not of type 'o'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "as", 1, "x"), &error,
                       "option 'base' is a string (s), not of type 'as'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "(ss)", "x", "y"), &error,
                       "option 'base' is a string (s), not of type '(ss)'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "v", "s", "x"), &error,
                       "option 'base' is a string (s), not of type 'v'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "a{sv}", 1, "x", "b", 1), &error,
                       "option 'base' is a string (s), not of type 'a{sv}'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "active", "s", "true"), &error,
                       "option 'active' is a boolean (b), not of type 's'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "active", "u", 1), &error,
                       "option 'active' is a boolean (b), not of type 'u'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "speed", "u", 1), &error,
                       "option 'speed' is an unsigned 64-bit integer (t), not of type 'u'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "speed", "x", (gint64) 1), &error,
                       "option 'speed' is an unsigned 64-bit integer (t), not of type 'x'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "speed", "d", 1.0), &error,
                       "option 'speed' is an unsigned 64-bit integer (t), not of type 'd'");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "granularity", "t", (guint64) 1), &error,
                       "option 'granularity' is an unsigned 32-bit integer (u), not of type 't'");
}

/* The first fault is told, whatever comes after it. */
static void first_fault(void)
{
        g_autoptr(GError) error = NULL;

        expect_refusal(read_options(rules, &error, "a{sv}", 3, "active", "b", 1, "auto", "s", "never",
                                    "what", "as", 2, "x", "y"),
                       &error, "option 'auto': 'never' is none of 'pivot', 'keep'");
}

static void twice(void)
{
        g_autoptr(GError) error = NULL;

        expect_refusal(read_options(rules, &error, "a{sv}", 2, "active", "b", 1, "active", "b", 1), &error,
                       "option 'active' is given twice");
        expect_refusal(
                read_options(rules, &error, "a{sv}", 3, "base", "s", "a", "active", "b", 1, "base", "b", 1),
                &error, "option 'base' is given twice");
}

static void out_of_range(void)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options =
                read_options(rules, &error, "a{sv}", 2, "buffer", "t", (guint64) 1000, "depth", "u", 255);

        g_assert_no_error(error);
        g_assert_cmpuint(options_number(options, "buffer"), ==, 1000);
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "buffer", "t", (guint64) 1001), &error,
                       "option 'buffer': 1001 is out of range, at most 1000");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "buffer", "t", G_MAXUINT64), &error,
                       "option 'buffer': 18446744073709551615 is out of range, at most 1000");
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "depth", "u", 256), &error,
                       "option 'depth': 256 is out of range, at most 255");
}

static void wrong_value(void)
{
        static const char *const values[] = { "", "Pivot", "pivot ", "keep,pivot", "abort" };
        g_autoptr(GError) error = NULL;

        for (guint i = 0; i < G_N_ELEMENTS(values); i++) {
                g_autofree char *text =
                        g_strdup_printf("option 'auto': '%s' is none of 'pivot', 'keep'", values[i]);
                expect_refusal(read_options(rules, &error, "a{sv}", 1, "auto", "s", values[i]), &error,
                               text);
        }
        expect_refusal(read_options(rules, &error, "a{sv}", 1, "base", "s", ""), &error,
                       "option 'base' is empty");
}

/* How many come is looked at before what they are. */
static void too_many(void)
{
        for (int n = OPTIONS_MAX - 1; n <= OPTIONS_MAX + 1; n++) {
                g_autoptr(sd_bus_message) message = message_new();
                g_autoptr(GError) error = NULL;
                g_autoptr(GPtrArray) options = NULL;
                g_autofree OptionRule *table = g_new0(OptionRule, 100);
                g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);

                g_assert_cmpint(sd_bus_message_open_container(message, 'a', "{sv}"), >=, 0);
                for (int i = 0; i < n; i++) {
                        g_ptr_array_add(keys, g_strdup_printf("o%d", i));
                        table[i] = (OptionRule){ keys->pdata[i], 's' };
                        g_assert_cmpint(sd_bus_message_append(message, "{sv}", table[i].key, "s", "x"), >=,
                                        0);
                }
                g_assert_cmpint(sd_bus_message_close_container(message), >=, 0);
                deliver(message);
                options = options_read(message, table, &error);
                if (n <= OPTIONS_MAX) {
                        g_assert_no_error(error);
                        g_assert_cmpuint(options->len, ==, n);
                        continue;
                }
                g_assert_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED);
                g_assert_cmpstr(error->message, ==, "65 options, more than 64");
                g_assert_null(options);
        }
}

static void far_too_many(void)
{
        g_autoptr(sd_bus_message) message = message_new();
        g_autoptr(GError) error = NULL;

        g_assert_cmpint(sd_bus_message_open_container(message, 'a', "{sv}"), >=, 0);
        for (int i = 0; i < 20000; i++)
                g_assert_cmpint(sd_bus_message_append(message, "{sv}", "base", "as", 1, "x"), >=, 0);
        g_assert_cmpint(sd_bus_message_close_container(message), >=, 0);
        deliver(message);
        g_assert_null(options_read(message, rules, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED);
}

/* Another argument where the options should be. */
static void no_dictionary(void)
{
        g_autoptr(GError) error = NULL;

        expect_refusal(read_options(rules, &error, "s", "active"), &error, "the options cannot be read");
        expect_refusal(read_options(rules, &error, "a{ss}", 1, "base", "x"), &error,
                       "the options cannot be read");
        expect_refusal(read_options(rules, &error, "a{sb}", 1, "active", 1), &error,
                       "the options cannot be read");
        expect_refusal(read_options(rules, &error, "av", 1, "s", "x"), &error, "the options cannot be read");
}

int main(int argc, char **argv)
{
        int status;

        g_test_init(&argc, &argv, NULL);
        connect_bus();
        g_test_add_func("/options/none", none);
        g_test_add_func("/options/each-type", each_type);
        g_test_add_func("/options/smallest-values", smallest_values);
        g_test_add_func("/options/among-others", among_others);
        g_test_add_func("/options/unknown", unknown);
        g_test_add_func("/options/wrong-type", wrong_type);
        g_test_add_func("/options/first-fault", first_fault);
        g_test_add_func("/options/twice", twice);
        g_test_add_func("/options/out-of-range", out_of_range);
        g_test_add_func("/options/wrong-value", wrong_value);
        g_test_add_func("/options/too-many", too_many);
        g_test_add_func("/options/far-too-many", far_too_many);
        g_test_add_func("/options/no-dictionary", no_dictionary);
        status = g_test_run();
        sd_bus_close_unref(bus);
        close(other_end);
        return status;
}
