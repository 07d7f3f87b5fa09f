#pragma once

int llama_max_devices(void);
