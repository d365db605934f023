/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-login.h>
#include <unistd.h>

static pid_t agent;

/* In the child: only what is asked for is left open, and signals do what they do. */
static void G_GNUC_NORETURN become_agent(int notify)
{
        g_autofree char *number = g_strdup_printf("%d", notify);
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        /* What it says is for the terminal, not for whoever reads our output. */
        dup2(STDERR_FILENO, STDOUT_FILENO);
        /* An agent of the session, a desktop's, goes first. Without a session polkit asks no fallback. */
        execlp("pkttyagent", "pkttyagent", "--notify-fd", number,
               sd_pid_get_session(0, NULL) >= 0 ? "--fallback" : NULL, NULL);
        _exit(EXIT_FAILURE);
}

void agent_open(const Client *client)
{
        char byte;
        int ends[2];

        if (agent > 0 || !client->ask_password || client->transport != TRANSPORT_LOCAL || geteuid() == 0 ||
            !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO) || pipe2(ends, O_CLOEXEC) < 0)
                return;
        agent = fork();
        if (agent == 0) {
                fcntl(ends[1], F_SETFD, 0);
                become_agent(ends[1]);
        }
        close(ends[1]);
        /* It closes its end when it is registered; or there is no such program. */
        while (agent > 0 && read(ends[0], &byte, 1) < 0 && errno == EINTR)
                ;
        close(ends[0]);
}

void agent_close(void)
{
        if (agent <= 0)
                return;
        kill(agent, SIGTERM);
        kill(agent, SIGCONT);
        while (waitpid(agent, NULL, 0) < 0 && errno == EINTR)
                ;
        agent = 0;
}
