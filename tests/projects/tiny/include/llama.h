#pragma once

const char * llama_version(void);
const char * llama_answer(void);
