"""Experiments, panels and defects. What an experiment fixes beforehand the database keeps fixed."""

import django.db.models.deletion
import uuid
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION arena_refuse_experiment_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The experiment % is frozen: start another one.', OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER experiment_frozen BEFORE UPDATE ON arena_experiment FOR EACH ROW
WHEN (to_jsonb(OLD) - 'state' IS DISTINCT FROM to_jsonb(NEW) - 'state')
EXECUTE FUNCTION arena_refuse_experiment_change();
CREATE TRIGGER block_frozen BEFORE UPDATE ON arena_block FOR EACH STATEMENT
EXECUTE FUNCTION arena_refuse_ledger_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON arena_defect FOR EACH ROW
EXECUTE FUNCTION arena_refuse_ledger_change();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON arena_defect FOR EACH STATEMENT
EXECUTE FUNCTION arena_refuse_ledger_change();
"""
BACKWARD = """
DROP TRIGGER keep_all ON arena_defect;
DROP TRIGGER append_only ON arena_defect;
DROP TRIGGER block_frozen ON arena_block;
DROP TRIGGER experiment_frozen ON arena_experiment;
DROP FUNCTION arena_refuse_experiment_change();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('arena', '0003_worth_of_a_vote'),
        ('generation', '0008_trial_versions'),
    ]

    operations = [
        migrations.CreateModel(
            name='Block',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField(help_text='In the order in which they are shown.')),
                ('seed_slot', models.PositiveIntegerField()),
                ('muted', models.BooleanField(default=False, help_text='Shown without sound.')),
            ],
            options={
                'ordering': ('position',),
            },
        ),
        migrations.CreateModel(
            name='Defect',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('what', models.CharField(choices=[('flicker', 'Flicker'), ('morphing', 'Morphing'), ('physics', 'Physics'), ('hands', 'Hands'), ('text', 'Text'), ('lip_sync', 'Lip sync'), ('audio', 'Audio artefact'), ('ignored', 'Prompt ignored')], max_length=8)),
                ('second', models.FloatField(blank=True, help_text='Into the clip.', null=True)),
                ('marked_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='Experiment',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=120)),
                ('category', models.CharField(choices=[('t2v-silent', 'Text to video, silent'), ('t2v-audio', 'Text to video with audio'), ('i2v-silent', 'Image to video, silent'), ('i2v-audio', 'Image to video with audio')], max_length=12)),
                ('seed_slots', models.PositiveIntegerField(help_text='Clip pairs per prompt.')),
                ('margin', models.FloatField(help_text='Normalised Elo: one worse by so much must not pass.')),
                ('alpha', models.FloatField(help_text='Chance that one worse by the margin is passed.')),
                ('beta', models.FloatField(help_text='Chance that one that is not worse is failed.')),
                ('max_votes', models.PositiveIntegerField()),
                ('public_share', models.FloatField(default=0, help_text="Of the category's pairs in the public stream, 0 to 1.")),
                ('muted_share', models.FloatField(default=0, help_text='Of the blocks that are shown without sound, 0 to 1.')),
                ('webhook', models.URLField(blank=True, help_text='Is sent the verdict.', max_length=500)),
                ('created_by', models.CharField(max_length=150)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('state', models.CharField(choices=[('running', 'Running'), ('decided', 'Decided'), ('cancelled', 'Cancelled')], default='running', max_length=9)),
            ],
            options={
                'ordering': ('-created_at',),
            },
        ),
        migrations.CreateModel(
            name='Half',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('candidate_left', models.BooleanField()),
                ('rank', models.PositiveIntegerField(help_text='In the order in which they are drawn.')),
                ('voted', models.BooleanField(default=False)),
                ('completes', models.BooleanField(default=False, help_text="The block's other half is voted.")),
                ('held_until', models.DateTimeField(help_text='A voter has it on the screen.', null=True)),
            ],
            options={
                'verbose_name_plural': 'halves',
            },
        ),
        migrations.CreateModel(
            name='Panel',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(max_length=80, unique=True)),
                ('name', models.CharField(max_length=120)),
                ('instructions', models.TextField(blank=True, help_text='Shown before the first pair.')),
                ('quota', models.PositiveIntegerField(default=100, help_text='Votes asked of each member.')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Seat',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('label', models.CharField(help_text='Who was invited.', max_length=120)),
                ('token', models.CharField(editable=False, max_length=64, unique=True)),
                ('revoked', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('pk',),
            },
        ),
        migrations.RemoveIndex(
            model_name='vote',
            name='vote_of_category',
        ),
        migrations.AddField(
            model_name='battle',
            name='kind',
            field=models.CharField(choices=[('arena', 'Arena'), ('experiment', 'Experiment'), ('same', 'Check: one version under two ids'), ('repeat', 'Check: shown before, sides swapped'), ('gold', 'Check: a clip against itself degraded')], default='arena', max_length=10),
        ),
        migrations.AddField(
            model_name='battle',
            name='repeats',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='repeated_by', to='arena.battle'),
        ),
        migrations.AddField(
            model_name='vote',
            name='kind',
            field=models.CharField(choices=[('arena', 'Arena'), ('experiment', 'Experiment'), ('same', 'Check: one version under two ids'), ('repeat', 'Check: shown before, sides swapped'), ('gold', 'Check: a clip against itself degraded')], default='arena', max_length=10),
        ),
        migrations.AddField(
            model_name='block',
            name='baseline_clip',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='generation.clip'),
        ),
        migrations.AddField(
            model_name='block',
            name='candidate_clip',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='generation.clip'),
        ),
        migrations.AddField(
            model_name='block',
            name='prompt',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='generation.prompt'),
        ),
        migrations.AddField(
            model_name='battle',
            name='block',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='battles', to='arena.block'),
        ),
        migrations.AddField(
            model_name='defect',
            name='clip',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='generation.clip'),
        ),
        migrations.AddField(
            model_name='defect',
            name='vote',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='defects', to='arena.vote'),
        ),
        migrations.AddField(
            model_name='experiment',
            name='baseline',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='experiments_as_baseline', to='generation.version'),
        ),
        migrations.AddField(
            model_name='experiment',
            name='candidate',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='experiments', to='generation.version'),
        ),
        migrations.AddField(
            model_name='experiment',
            name='prompt_set',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='experiments', to='generation.promptset'),
        ),
        migrations.AddField(
            model_name='block',
            name='experiment',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='blocks', to='arena.experiment'),
        ),
        migrations.AddField(
            model_name='half',
            name='block',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='halves', to='arena.block'),
        ),
        migrations.AddField(
            model_name='half',
            name='experiment',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='halves', to='arena.experiment'),
        ),
        migrations.AddField(
            model_name='battle',
            name='experiment',
            field=models.ForeignKey(blank=True, help_text='That it is part of, or whose panel it checks.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='battles', to='arena.experiment'),
        ),
        migrations.AddField(
            model_name='vote',
            name='experiment',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='votes', to='arena.experiment'),
        ),
        migrations.AddIndex(
            model_name='vote',
            index=models.Index(condition=models.Q(('kind', 'arena')), fields=['category', 'id'], name='vote_of_arena'),
        ),
        migrations.AddIndex(
            model_name='vote',
            index=models.Index(condition=models.Q(('experiment__isnull', False)), fields=['experiment', 'id'], name='vote_of_experiment'),
        ),
        migrations.AddConstraint(
            model_name='battle',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('block', None), ('experiment', None), ('kind', 'arena'), ('repeats', None)), models.Q(('block__isnull', False), ('experiment__isnull', False), ('kind', 'experiment'), ('repeats', None)), models.Q(('block', None), ('experiment__isnull', False), ('kind__in', ('same', 'gold')), ('repeats', None)), models.Q(('block', None), ('experiment__isnull', False), ('kind', 'repeat'), ('repeats__isnull', False)), _connector='OR'), name='battle_of_its_kind'),
        ),
        migrations.AddField(
            model_name='panel',
            name='experiments',
            field=models.ManyToManyField(blank=True, related_name='panels', to='arena.experiment'),
        ),
        migrations.AddField(
            model_name='seat',
            name='panel',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='seats', to='arena.panel'),
        ),
        migrations.AddField(
            model_name='seat',
            name='voter',
            field=models.OneToOneField(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='seat', to='arena.voter'),
        ),
        migrations.AddConstraint(
            model_name='defect',
            constraint=models.UniqueConstraint(fields=('vote', 'clip', 'what'), name='defect_once'),
        ),
        migrations.AddIndex(
            model_name='experiment',
            index=models.Index(condition=models.Q(('state', 'running')), fields=['category'], name='experiment_running'),
        ),
        migrations.AddConstraint(
            model_name='experiment',
            constraint=models.CheckConstraint(condition=models.Q(('candidate', models.F('baseline')), _negated=True), name='experiment_two_versions'),
        ),
        migrations.AddConstraint(
            model_name='experiment',
            constraint=models.CheckConstraint(condition=models.Q(('alpha__gt', 0), ('alpha__lt', 0.5), ('beta__gt', 0), ('beta__lt', 0.5), ('margin__gt', 0), ('max_votes__gt', 1), ('muted_share__gte', 0), ('muted_share__lte', 1), ('public_share__gte', 0), ('public_share__lte', 1), ('seed_slots__gt', 0)), name='experiment_numbers'),
        ),
        migrations.AddConstraint(
            model_name='block',
            constraint=models.UniqueConstraint(fields=('experiment', 'position'), name='block_once'),
        ),
        migrations.AddConstraint(
            model_name='half',
            constraint=models.UniqueConstraint(fields=('block', 'candidate_left'), name='half_once'),
        ),
        migrations.AddIndex(
            model_name='half',
            index=models.Index(condition=models.Q(('voted', False)), fields=['experiment', '-completes', 'rank'], name='half_to_draw'),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
