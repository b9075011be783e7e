#include "runtime/memory/list.h"
