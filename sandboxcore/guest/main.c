/* Which part of the guest this process is. */
#include "guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;
struct settings settings = {.default_user = "", .default_home = ""};

static int usage(void) {
    fputs("sandboxcore guest: init --listen FD [--log FD] [--log-old FD] [--status FD] [--restart POLICY] [--tty] [--stdin-open]"
          " [--user USER] [-- ARGV...] | relay --dir DIR [--dir DIR...] [--user USER] [--home DIR] | connect PORT | pause | version\n",
          stderr);
    return 64;
}

/* What the shell that let us in, or bubblewrap, has added is not the container's. */
static void take_environment(void) {
    static const char *const added[] = {"_", "PWD", "OLDPWD", "SHLVL"};
    for (size_t i = 0; i < sizeof added / sizeof *added; i++) unsetenv(added[i]);
    settings.base_env = environ;
}

static int init_main(int argc, char **argv) {
    struct keeper_options options = {.listen = -1, .log = -1, .log_old = -1, .status = -1, .init = true, .restart = "no"};
    int i = 0;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "--tty") == 0) { options.tty = true; continue; }
        if (strcmp(name, "--stdin-open") == 0) { options.stdin_open = true; continue; }
        if (strcmp(name, "--listen") == 0) options.listen = atoi(value);
        else if (strcmp(name, "--log") == 0) options.log = atoi(value);
        else if (strcmp(name, "--log-old") == 0) options.log_old = atoi(value);
        else if (strcmp(name, "--status") == 0) options.status = atoi(value);
        else if (strcmp(name, "--restart") == 0) options.restart = value;
        else if (strcmp(name, "--user") == 0) settings.default_user = value;
        else return usage();
        i++;
    }
    options.argv = argv + (i < argc ? i + 1 : argc);
    if (options.listen < 0) return usage();
    keeper_main(&options);
}

int main(int argc, char **argv) {
    take_environment();
    if (argc > 1 && strcmp(argv[1], "init") == 0) return init_main(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "relay") == 0) return relay_main(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "connect") == 0) return connect_main(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "pause") == 0) return pause_main();
    if (argc > 1 && strcmp(argv[1], "version") == 0) return printf("%d\n", PROTOCOL_VERSION) < 0;
    return usage();
}
