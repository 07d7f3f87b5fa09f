// excerpt: LayerSettingEXT
