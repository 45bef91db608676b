// The classic dashboard with the two panels that docs/deploy/grafana-dashboard.json has, strictly.
import * as raw from './node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import * as stat from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import * as timeseries from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';

// Grafana fills in options that are missing.
type PanelOf<Type, Options, Custom> = Omit<raw.Panel, 'type' | 'options' | 'fieldConfig'> & {
  type: Type;
  options?: Partial<Options>;
  fieldConfig: Omit<raw.FieldConfigSource, 'defaults'> & { defaults: Omit<raw.FieldConfig, 'custom'> & { custom?: Custom } };
};
// The published target is that of Grafana's own annotations; its comment says that it should be any data source's query.
type Annotation = Omit<raw.AnnotationQuery, 'target'> & { target: Record<string, unknown> };

export interface StrictDashboard extends Omit<raw.Dashboard, 'panels' | 'annotations'> {
  annotations: { list: Annotation[] };
  panels: Array<PanelOf<'stat', stat.Options, {}> | PanelOf<'timeseries', timeseries.Options, Partial<timeseries.FieldConfig>>>;
}
