/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-journal.h>

#define FIELDS_MAX 24

static const char *const message_ids[] = {
#define X(id, text) [id] = text,
        MESSAGE_IDS(X)
#undef X
};

typedef struct {
        struct iovec fields[FIELDS_MAX];
        int n;
} Record;

static void add(Record *record, const char *name, const char *value)
{
        gsize length = strlen(name);
        char *text;

        if (!value || !*value || record->n == FIELDS_MAX)
                return;
        for (int i = 0; i < record->n; i++)
                if (strncmp(record->fields[i].iov_base, name, length) == 0 &&
                    ((char *) record->fields[i].iov_base)[length] == '=')
                        return; /* first come, first served */
        text = g_strdup_printf("%s=%s", name, value);
        record->fields[record->n++] = (struct iovec){ text, strlen(text) };
}

static void add_number(Record *record, const char *name, guint32 value)
{
        char text[16];

        g_snprintf(text, sizeof(text), "%u", value);
        add(record, name, text);
}

static void add_job(Record *record, const Job *job)
{
        add(record, "BLOCKJOB_ID", job->id);
        add(record, "BLOCKJOB_TYPE", job->driver->type);
        add(record, "BLOCKJOB_DISK", job->disk);
        add(record, "BLOCKJOB_RESULT", job_result_name(job->record.result));
        add(record, "BLOCKJOB_SOURCE", job->source);
        add(record, "BLOCKJOB_TARGET", job->target);
        add(record, "BLOCKJOB_IMAGE", job_disk_image(job));
        add_number(record, "BLOCKJOB_CALLER_UID", job->started_by);
        add(record, "BLOCKJOB_ERROR", job->error_message);
}

void log_event(int priority, MessageId message, const Domain *domain, const Job *job, const LogField *fields,
               const char *format, ...)
{
        Record record = { .n = 0 };
        g_autofree char *text = NULL;
        va_list arguments;

        va_start(arguments, format);
        text = g_strdup_vprintf(format, arguments);
        va_end(arguments);

        if (!g_log_writer_is_journald(STDERR_FILENO)) {
                fprintf(stderr, "blockjobd: %s\n", text);
                return;
        }
        add(&record, "MESSAGE", text);
        add_number(&record, "PRIORITY", (guint32) priority);
        add(&record, "SYSLOG_IDENTIFIER", "blockjobd");
        add(&record, "MESSAGE_ID", message_ids[message]);
        for (; fields && fields->name; fields++)
                add(&record, fields->name, fields->value);
        add(&record, "BLOCKJOB_DOMAIN", domain ? domain->name : job ? job->domain : NULL);
        add(&record, "BLOCKJOB_DOMAIN_UUID", domain ? domain->uuid : NULL);
        if (job)
                add_job(&record, job);
        sd_journal_sendv(record.fields, record.n);
        for (int i = 0; i < record.n; i++)
                g_free(record.fields[i].iov_base);
}
