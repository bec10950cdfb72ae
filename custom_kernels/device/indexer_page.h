// Where a key element lies in its page, for a kernel compiled for one page layout by the macro PRESHUFFLED.
#pragma once

#include "layouts.h"

DEVICE int page_key_offset(int token, int dim) {
  return PRESHUFFLED ? preshuffled_page_key_offset(token, dim) : plain_page_key_offset(token, dim);
}
