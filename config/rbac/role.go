// Package rbac has the roles that the operator is installed with, for those who ask whether it got them.
package rbac

import _ "embed"

// ManagerRoles is role.yaml: the manager's ClusterRole, and its Role in the operator's own namespace.
//
//go:embed role.yaml
var ManagerRoles []byte
