/* Who a command runs as: the image's own passwd and group files, read without libc's name services. */
#include "guest.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIELDS = 7, LINE = 65536 };

/* Split a line of colon-separated fields in place. */
static int split(char *line, char *fields[FIELDS]) {
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *at = line; at && n < FIELDS; n++) {
        fields[n] = at;
        at = strchr(at, ':');
        if (at) *at++ = 0;
    }
    return n;
}

static bool number(const char *text, uint32_t *value) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*end || errno || v >= UINT32_MAX) return false;
    *value = (uint32_t)v;
    return true;
}

/* Call `take` with each line's fields until it returns true. */
static bool scan(const char *path, int least, bool (*take)(char **fields, void *with), void *with) {
    FILE *file = fopen(path, "re");
    char *line = malloc(LINE), *fields[FIELDS];
    bool found = false;
    while (file && line && !found && fgets(line, LINE, file)) found = split(line, fields) >= least && take(fields, with);
    if (file) fclose(file);
    free(line);
    return found;
}

struct want {
    const char *name; /* NULL: look for the number */
    uint32_t id;
    struct identity *who;
    char found_name[256];
};

static bool take_user(char **fields, void *with) {
    struct want *want = with;
    uint32_t uid, gid;
    if (!number(fields[2], &uid) || !number(fields[3], &gid)) return false;
    if (want->name ? strcmp(fields[0], want->name) != 0 : uid != want->id) return false;
    want->who->uid = uid;
    want->who->gid = gid;
    snprintf(want->who->home, sizeof want->who->home, "%s", *fields[5] ? fields[5] : "/");
    snprintf(want->found_name, sizeof want->found_name, "%s", fields[0]);
    return true;
}

static bool take_group(char **fields, void *with) {
    struct want *want = with;
    return strcmp(fields[0], want->name) == 0 && number(fields[2], &want->id);
}

static bool take_membership(char **fields, void *with) {
    struct want *want = with;
    struct identity *who = want->who;
    uint32_t gid;
    char *rest = NULL;
    if (!number(fields[2], &gid) || gid == who->gid) return false;
    for (char *name = strtok_r(fields[3], ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        if (strcmp(name, want->found_name) == 0 && who->group_count < (int)(sizeof who->groups / sizeof *who->groups))
            who->groups[who->group_count++] = gid;
    return false;
}

/* user is "name|uid[:group|gid]". A uid without an entry gets group 0 and home "/", as the container runtimes do. */
int identify(const char *user, struct identity *who) {
    memset(who, 0, sizeof *who);
    who->uid = geteuid();
    who->gid = getegid();
    if (!*user) return 0;

    char name[256];
    const char *colon = strchr(user, ':');
    size_t n = colon ? (size_t)(colon - user) : strlen(user);
    if (n >= sizeof name || n == 0) return ENOENT;
    memcpy(name, user, n);
    name[n] = 0;

    struct want want = {.name = name, .who = who};
    strcpy(who->home, "/");
    if (!scan("/etc/passwd", 6, take_user, &want)) {
        if (!number(name, &want.id)) return ENOENT;
        want.name = NULL;
        who->uid = want.id;
        who->gid = 0;
        scan("/etc/passwd", 6, take_user, &want);
    }
    if (want.found_name[0] && !colon) scan("/etc/group", 4, take_membership, &want);
    if (colon) {
        struct want group = {.name = colon + 1};
        if (!scan("/etc/group", 3, take_group, &group) && !number(colon + 1, &group.id)) return ENOENT;
        who->gid = group.id;
    }
    who->change = who->uid != geteuid() || who->gid != getegid() || who->group_count > 0;
    if (!who->change) return 0;
    if (geteuid() != 0) return who->uid == geteuid() && who->gid == getegid() ? (who->change = false, 0) : EPERM;
    return 0;
}

int become(const struct identity *who) {
    if (!who->change) return 0;
    if (syscall(SYS_setgroups, (long)who->group_count, who->groups) < 0) {
        /* In a user namespace with one id the kernel denies this; staying in our own groups is then harmless for ourselves. */
        if (who->uid != geteuid() || who->gid != getegid()) return errno;
        return 0;
    }
    if (syscall(SYS_setresgid, who->gid, who->gid, who->gid) < 0) return errno;
    if (syscall(SYS_setresuid, who->uid, who->uid, who->uid) < 0) return errno;
    return 0;
}
