/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Every method of every interface and the polkit action that guards it. A method without a row is denied.
 * ACTION_NONE answers from what everybody may read anyway. ACTION_MANAGE_JOB becomes manage-own-job where
 * the caller's uid is the one that started the job. */
#define AUTHORIZATION_TABLE(X)                            \
        X(Manager, AttachDomain, ACTION_MANAGE_DOMAINS)   \
        X(Manager, AttachDomainFd, ACTION_MANAGE_DOMAINS) \
        X(Manager, DefineDomain, ACTION_MANAGE_DOMAINS)   \
        X(Manager, CreateDomain, ACTION_MANAGE_DOMAINS)   \
        X(Manager, InspectImage, ACTION_MANAGE_DOMAINS)   \
        X(Manager, GetDomain, ACTION_NONE)                \
        X(Manager, GetJob, ACTION_NONE)                   \
        X(Manager, ListJobs, ACTION_NONE)                 \
        X(Domain, Detach, ACTION_MANAGE_DOMAINS)          \
        X(Domain, Start, ACTION_MANAGE_DOMAINS)           \
        X(Domain, Shutdown, ACTION_MANAGE_DOMAINS)        \
        X(Domain, Destroy, ACTION_MANAGE_DOMAINS)         \
        X(Domain, Undefine, ACTION_MANAGE_DOMAINS)        \
        X(Domain, GetXml, ACTION_MANAGE_DOMAINS)          \
        X(Domain, Suspend, ACTION_MANAGE_DOMAINS)         \
        X(Domain, Resume, ACTION_MANAGE_DOMAINS)          \
        X(Disk, Commit, ACTION_START_JOB)                 \
        X(Disk, Copy, ACTION_WRITE_PATH)                  \
        X(Disk, CopyToFd, ACTION_START_JOB)               \
        X(Disk, Pull, ACTION_START_JOB)                   \
        X(Disk, Backup, ACTION_WRITE_PATH)                \
        X(Disk, BackupToFd, ACTION_START_JOB)             \
        X(Disk, Snapshot, ACTION_START_JOB)               \
        X(Disk, Resize, ACTION_START_JOB)                 \
        X(Disk, Map, ACTION_START_JOB)                    \
        X(Job, Abort, ACTION_MANAGE_JOB)                  \
        X(Job, Pivot, ACTION_MANAGE_JOB)                  \
        X(Job, SetSpeed, ACTION_MANAGE_JOB)               \
        X(Job, Pause, ACTION_MANAGE_JOB)                  \
        X(Job, Resume, ACTION_MANAGE_JOB)                 \
        X(Job, SetMode, ACTION_MANAGE_JOB)                \
        X(Job, Dismiss, ACTION_MANAGE_JOB)

/* The actions as polkit knows them. */
#define ACTIONS(X)                                                \
        X(ACTION_NONE, NULL)                                      \
        X(ACTION_MANAGE_DOMAINS, "org.blockjobd1.manage-domains") \
        X(ACTION_START_JOB, "org.blockjobd1.start-job")           \
        X(ACTION_WRITE_PATH, "org.blockjobd1.write-path")         \
        X(ACTION_MANAGE_OWN_JOB, "org.blockjobd1.manage-own-job") \
        X(ACTION_MANAGE_JOB, "org.blockjobd1.manage-job")

typedef enum {
#define X(action, name) action,
        ACTIONS(X)
#undef X
} Action;
