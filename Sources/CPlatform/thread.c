#include "CPlatform.h"
#include <sys/prctl.h>

void coffer_name_thread(const char *name) { prctl(PR_SET_NAME, name); }
