// excerpt: LayerSettingEXT
// excerpt: spirv/unified1/spirv.hpp
