// Where a key element lies in its page, in the page layout that a kernel is compiled for.
#pragma once

#include "layouts.h"

template <bool PRESHUFFLED> DEVICE int page_key_offset(int token, int dim) {
  return PRESHUFFLED ? preshuffled_page_key_offset(token, dim) : plain_page_key_offset(token, dim);
}
