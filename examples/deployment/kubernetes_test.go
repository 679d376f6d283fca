package deployment_test

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

type (
	labels map[string]string

	metadata struct {
		Name   string `yaml:"name"`
		Labels labels `yaml:"labels"`
	}

	selector struct {
		MatchLabels labels `yaml:"matchLabels"`
	}

	// workload is a Deployment (apps/v1) or a StatefulSet.
	workload struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       struct {
			Replicas    int      `yaml:"replicas"`
			ServiceName string   `yaml:"serviceName"`
			Selector    selector `yaml:"selector"`
			Strategy    struct {
				Type          string         `yaml:"type"`
				RollingUpdate map[string]int `yaml:"rollingUpdate"`
			} `yaml:"strategy"`
			Template struct {
				Metadata metadata `yaml:"metadata"`
				Spec     pod      `yaml:"spec"`
			} `yaml:"template"`
			VolumeClaimTemplates []struct {
				Metadata metadata `yaml:"metadata"`
				Spec     struct {
					AccessModes []string                     `yaml:"accessModes"`
					Resources   map[string]map[string]string `yaml:"resources"`
				} `yaml:"spec"`
			} `yaml:"volumeClaimTemplates"`
		} `yaml:"spec"`
	}

	pod struct {
		ServiceAccountName            string `yaml:"serviceAccountName"`
		AutomountServiceAccountToken  *bool  `yaml:"automountServiceAccountToken"`
		TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               struct {
			RunAsNonRoot        bool              `yaml:"runAsNonRoot"`
			RunAsUser           int               `yaml:"runAsUser"`
			RunAsGroup          int               `yaml:"runAsGroup"`
			FSGroup             int               `yaml:"fsGroup"`
			FSGroupChangePolicy string            `yaml:"fsGroupChangePolicy"`
			SeccompProfile      map[string]string `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		Containers []container `yaml:"containers"`
		Volumes    []struct {
			Name     string            `yaml:"name"`
			EmptyDir map[string]string `yaml:"emptyDir"`
		} `yaml:"volumes"`
	}

	container struct {
		Name  string   `yaml:"name"`
		Image string   `yaml:"image"`
		Args  []string `yaml:"args"`
		Ports []struct {
			Name          string `yaml:"name"`
			ContainerPort int    `yaml:"containerPort"`
		} `yaml:"ports"`
		Env []struct {
			Name      string `yaml:"name"`
			Value     string `yaml:"value"`
			ValueFrom struct {
				SecretKeyRef struct {
					Name string `yaml:"name"`
					Key  string `yaml:"key"`
				} `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		} `yaml:"env"`
		StartupProbe    probe                        `yaml:"startupProbe"`
		ReadinessProbe  probe                        `yaml:"readinessProbe"`
		LivenessProbe   probe                        `yaml:"livenessProbe"`
		Resources       map[string]map[string]string `yaml:"resources"`
		SecurityContext struct {
			AllowPrivilegeEscalation *bool               `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool                `yaml:"readOnlyRootFilesystem"`
			Capabilities             map[string][]string `yaml:"capabilities"`
		} `yaml:"securityContext"`
		VolumeMounts []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}

	probe struct {
		HTTPGet struct {
			Path string `yaml:"path"`
			Port string `yaml:"port"`
		} `yaml:"httpGet"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		TimeoutSeconds   int `yaml:"timeoutSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}

	serviceAccount struct {
		APIVersion                   string   `yaml:"apiVersion"`
		Kind                         string   `yaml:"kind"`
		Metadata                     metadata `yaml:"metadata"`
		AutomountServiceAccountToken *bool    `yaml:"automountServiceAccountToken"`
	}

	serviceObject struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       struct {
			ClusterIP string `yaml:"clusterIP"`
			Selector  labels `yaml:"selector"`
			Ports     []struct {
				Name       string `yaml:"name"`
				Port       int    `yaml:"port"`
				TargetPort string `yaml:"targetPort"`
			} `yaml:"ports"`
		} `yaml:"spec"`
	}

	disruptionBudget struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       struct {
			MinAvailable int      `yaml:"minAvailable"`
			Selector     selector `yaml:"selector"`
		} `yaml:"spec"`
	}

	networkPolicy struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       struct {
			PodSelector selector `yaml:"podSelector"`
			PolicyTypes []string `yaml:"policyTypes"`
			Ingress     []struct {
				From []struct {
					NamespaceSelector selector `yaml:"namespaceSelector"`
				} `yaml:"from"`
				Ports []struct {
					Port string `yaml:"port"`
				} `yaml:"ports"`
			} `yaml:"ingress"`
		} `yaml:"spec"`
	}
)

// versions are the API versions of the kinds that the manifests use.
var versions = map[string]string{
	"Deployment": "apps/v1", "StatefulSet": "apps/v1", "ServiceAccount": "v1", "Service": "v1",
	"PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1",
}

func object(kind string) any {
	switch kind {
	case "Deployment", "StatefulSet":
		return new(workload)
	case "ServiceAccount":
		return new(serviceAccount)
	case "Service":
		return new(serviceObject)
	case "PodDisruptionBudget":
		return new(disruptionBudget)
	case "NetworkPolicy":
		return new(networkPolicy)
	}
	return nil
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(folder, "kubernetes", "*.yaml"))
	if err != nil || len(files) != 2 {
		t.Fatalf("manifests %q, %v; want 2", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			var work *workload
			accounts := map[string]bool{}
			selected := map[string]labels{}
			version := func(kind, got string) {
				if got != versions[kind] {
					t.Errorf("%s has apiVersion %q, want %q", kind, got, versions[kind])
				}
			}
			for _, o := range documents(t, filepath.Join("kubernetes", name), object) {
				switch o := o.(type) {
				case *workload:
					version(o.Kind, o.APIVersion)
					work = o
					selected[o.Kind] = o.Spec.Selector.MatchLabels
				case *serviceAccount:
					version(o.Kind, o.APIVersion)
					accounts[o.Metadata.Name] = true
				case *serviceObject:
					version(o.Kind, o.APIVersion)
					selected[o.Kind] = o.Spec.Selector
				case *disruptionBudget:
					version(o.Kind, o.APIVersion)
					selected[o.Kind] = o.Spec.Selector.MatchLabels
				case *networkPolicy:
					version(o.Kind, o.APIVersion)
					selected[o.Kind] = o.Spec.PodSelector.MatchLabels
				}
			}
			if work == nil {
				t.Fatal("no workload")
			}
			for kind, l := range selected {
				if !maps.Equal(l, work.Spec.Template.Metadata.Labels) {
					t.Errorf("%s selects %v, the pods have %v", kind, l, work.Spec.Template.Metadata.Labels)
				}
			}
			if a := work.Spec.Template.Spec.ServiceAccountName; !accounts[a] {
				t.Errorf("no service account %q", a)
			}
			checkPod(t, work)
		})
	}
}

func checkPod(t *testing.T, work *workload) {
	t.Helper()
	p := &work.Spec.Template.Spec
	if s := &p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.SeccompProfile["type"] != "RuntimeDefault" {
		t.Errorf("security context %+v, want a user that is not root and seccomp's default", *s)
	}
	if len(p.Containers) != 1 {
		t.Fatalf("%d containers, want 1", len(p.Containers))
	}
	c := &p.Containers[0]
	if s := &c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities["drop"], []string{"ALL"}) {
		t.Errorf("security context of the container %+v, want no rights and a read-only file system", *s)
	}
	environ := map[string]string{}
	for _, e := range c.Env {
		if _, twice := environ[e.Name]; twice {
			t.Errorf("variable %s is set twice", e.Name)
		}
		environ[e.Name] = e.Value
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" && ref.Key != "" && e.Value == "" {
			environ[e.Name] = "a secret of sixteen bytes or more"
		}
	}
	need := stopTime(t, c.Name, environ)
	if grace := time.Duration(p.TerminationGracePeriodSeconds) * time.Second; grace < need {
		t.Errorf("the pod is killed %s after SIGTERM, the program may take %s", grace, need)
	}
	volumes := map[string]bool{}
	for _, v := range p.Volumes {
		volumes[v.Name] = true
	}
	for _, v := range work.Spec.VolumeClaimTemplates {
		volumes[v.Metadata.Name] = true
	}
	for _, m := range c.VolumeMounts {
		if !volumes[m.Name] {
			t.Errorf("%s mounts %q, which is no volume", m.MountPath, m.Name)
		}
		delete(volumes, m.Name)
	}
	for name := range volumes {
		t.Errorf("volume %q is mounted nowhere", name)
	}
	ports := map[string]bool{}
	for _, port := range c.Ports {
		ports[port.Name] = true
	}
	for path, probe := range map[string]probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe.HTTPGet.Path != path || !ports[probe.HTTPGet.Port] {
			t.Errorf("probe of %s asks %q at port %q", path, probe.HTTPGet.Path, probe.HTTPGet.Port)
		}
	}
}
