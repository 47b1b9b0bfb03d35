package component

// FileOptions is what goes into config.json beside the configuration.
type FileOptions struct {
	Action          string // empty: run
	ImageParameters *Value // of the image that is run, unsealed; nil: none
}

func (o *FileOptions) action() *Value {
	if o.Action != "" {
		return NewString(o.Action)
	}
	return NewString("run")
}

// File returns what the main component's config.json holds, in the order of the
// reference: what was written, then defaults, then what is always there.
func (c *Config) File(o *FileOptions) *Value {
	out := c.tree.Clone()
	out.Remove("runtime")
	out.Remove("processors")
	out.Set("parameters", c.Parameters)
	out.Set("image_parameters", objectOrList(o.ImageParameters))
	out.Set("action", o.action())
	out.Set("storage", objectOrList(c.tree.Get("storage")))
	out.Set("authorization", c.authorization())
	return out
}

// authorization returns what a component is given of its credentials.
func (c *Config) authorization() *Value {
	out := NewObject()
	if v := c.Authorization.OAuthCredentials; v != nil {
		api := NewObject()
		api.Set("credentials", v)
		out.Set("oauth_api", api)
	}
	if v := c.Authorization.AppProxy; v != nil {
		out.Set("app_proxy", v)
	}
	if s := c.Runtime.BackendContext; s != "" {
		out.Set("context", NewString(s))
	}
	return out
}

// File returns what a processor's config.json holds.
func (p *Processor) File(o *FileOptions) *Value {
	out := NewObject()
	out.Set("shared_code_row_ids", NewList())
	out.Set("parameters", objectOrList(p.Parameters))
	out.Set("image_parameters", objectOrList(o.ImageParameters))
	out.Set("action", o.action())
	out.Set("storage", NewObject())
	out.Set("authorization", NewObject())
	return out
}
